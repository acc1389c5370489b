"""How far an exported graph is from its method, and what eight bits cost."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from scipy.stats import rankdata
from torch import Tensor

from fewshot_ad.api import FewShotError, Method, Prediction
from fewshot_ad.inspection.choosing import stacked
from fewshot_ad.inspection.exported import Exported, Judged
from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.parts.calibration import altered_copies
from fewshot_ad.parts.synthesis import cut_paste

TOLERANCE = 1e-4
CHECKED = 8


class Parity(NamedTuple):
    """How far the graph is from the method, over all checked images.

    Attributes:
        images: how many were checked.
        score, map: the greatest differences, as a share of the greatest score and map value.
    """

    images: int
    score: float
    map: float

    def __str__(self) -> str:
        return (
            f"scores differ by {self.score:.1g} and maps by {self.map:.1g} of their greatest "
            f"value at most, over {self.images} images"
        )


class Loss(NamedTuple):
    """What eight bits change, over normals, altered copies of them, and copies with defects.

    Attributes:
        parity: as above.
        ranks: Spearman's correlation of the image scores.
        decisions: how many images are decided otherwise.
    """

    parity: Parity
    ranks: float
    decisions: int

    def __str__(self) -> str:
        return (
            f"{self.parity}; rank correlation of scores {self.ranks:.4f}; "
            f"{self.decisions} of {self.parity.images} decisions differ"
        )


def normals_and_copies(inspector: Inspector) -> Float[Tensor, "n 3 s s"]:
    """Some normals and an altered copy of each, as the method eats them."""
    normals = stacked(inspector.squares[:CHECKED], inspector.method)
    return torch.cat([normals, altered_copies(normals, 1, torch.Generator().manual_seed(0))])


def with_defects(inspector: Inspector) -> Float[Tensor, "n 3 s s"]:
    """The same normals, a box of each pasted elsewhere in it."""
    method = inspector.method
    normals = _colours(stacked(inspector.squares[:CHECKED], method), method)
    painted = cut_paste(normals, torch.Generator().manual_seed(0)).images
    mean, std = _moments(method)
    return (painted - mean) / std


def as_colours(images: Float[Tensor, "n 3 s s"], method: Method) -> Float32[np.ndarray, "n 3 s s"]:
    """What a graph eats: RGB in [0, 1], where a method eats normalised images."""
    return _colours(images, method).numpy()


def check_parity(exported: Exported, inspector: Inspector) -> Parity:
    """Compare the graph with the method on normals and copies, the first alone, all others at once.

    Raises:
        FewShotError: they differ by more than ``TOLERANCE``.
    """
    images = normals_and_copies(inspector)
    wanted = inspector.method.predict(images)
    parity = parity_of(judged(exported, as_colours(images, inspector.method)), wanted)
    if not max(parity.score, parity.map) <= TOLERANCE:
        raise FewShotError(
            f"the exported graph judges otherwise: {parity}, {TOLERANCE:g} is allowed; nothing is "
            "kept"
        )
    return parity


def measure_loss(exported: Exported, inspector: Inspector) -> Loss:
    """Compare a quantised graph with the method, on made-up defects, too."""
    images = torch.cat([normals_and_copies(inspector), with_defects(inspector)])
    wanted = inspector.method.predict(images)
    found = judged(exported, as_colours(images, inspector.method))
    score, threshold = wanted.image_score.numpy(), inspector.threshold
    return Loss(
        parity_of(found, wanted),
        rank_correlation(found.image_score, score),
        int(((found.image_score > threshold) != (score > threshold)).sum()),
    )


def judged(exported: Exported, images: Float32[np.ndarray, "n 3 s s"]) -> Judged:
    """The first image alone and the others together: a graph must take any number."""
    found = [exported.judge(part) for part in (images[:1], images[1:])]
    return Judged(*(np.concatenate(each) for each in zip(*found, strict=True)))


def parity_of(found: Judged, wanted: Prediction) -> Parity:
    """How far the one is from the other."""
    return Parity(
        len(found.image_score),
        _difference(found.image_score, wanted.image_score.numpy()),
        _difference(found.anomaly_map, wanted.anomaly_map.numpy()),
    )


def rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's; ties share their mean rank."""
    ranks = [rankdata(scores) for scores in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))


def _moments(method: Method) -> tuple[Tensor, Tensor]:
    frame = method.preprocess
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (frame.mean, frame.std))
    return mean, std


def _colours(images: Float[Tensor, "n 3 s s"], method: Method) -> Float[Tensor, "n 3 s s"]:
    mean, std = _moments(method)
    return images * std + mean
