"""How small a defect can be: metrics by quartile of its area, with images whole and in tiles.

A quartile of the anomalous images, ordered by the share of the image that is anomalous, is judged
against all normal images. Tiles show a method the image larger: it is resized to ``factor`` times
the side, cut into overlapping squares of the usual side, and the maps are joined again.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fewshot_ad.api import (
    Dataset,
    Episode,
    FewShotError,
    MetaTrained,
    Method,
    Prediction,
    Support,
    Track,
)
from fewshot_ad.evaluation.aupro import prepare_truth
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.evaluation.identity import method_name
from fewshot_ad.evaluation.metrics import Metrics, image_metrics, pixel_metrics
from fewshot_ad.evaluation.queries import Query
from fewshot_ad.parts.tiles import Tiling

QUARTILES = 4
EVAL_SIZE = 256


@dataclass(kw_only=True, eq=False)
class Tiled(Method):
    """Any training-free method on tiles: all of a support's tiles are its support.

    So it suits methods that do not ask where in the image they are. An image is as anomalous as its
    worst tile.

    Attributes:
        inner: the method that sees tiles, of the side that it has anyway.
        factor: how many times larger the image is than a tile.
    """

    track: ClassVar[Track] = "training_free"
    inner: Method
    factor: int = 2
    _tiling: Tiling = field(init=False)

    def __post_init__(self) -> None:
        """Take the side of the tiles from the method.

        Raises:
            FewShotError: the factor is below 1, or the method is none that tiles suit.
        """
        if self.factor < 1:
            raise FewShotError(f"tiles by a factor of {self.factor}; give 1 or more")
        if isinstance(self.inner, MetaTrained) or self.inner.track == "batched":
            raise FewShotError(
                f"{type(self.inner).__name__} is {self.inner.track}: tiles are for methods that "
                "learn from the support alone"
            )
        side = self.inner.preprocess.size
        self.preprocess = replace(self.inner.preprocess, size=side * self.factor)
        self._tiling = Tiling((self.preprocess.size, self.preprocess.size), side)

    def params(self) -> dict[str, Any]:
        """Its own, and those of the method that sees tiles, which is fitted again and again."""
        return {
            "inner": {"method": method_name(self.inner), **self.inner.params()},
            "factor": self.factor,
            "seed": self.seed,
            "device": self.device,
            "preprocess": asdict(self.preprocess),
        }

    def fit(self, support: Support) -> "Tiled":
        """Show the method every tile of every support image."""
        tiles = torch.cat(self._tiling.cut(support.images))
        self.inner.fit(Support(support.target_class, tiles))
        return self

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Judge the tiles and join what they say."""
        found = [self.inner.predict(tiles) for tiles in self._tiling.cut(images)]
        score = torch.stack([each.image_score for each in found]).amax(dim=0)
        return Prediction(score, self._tiling.join([each.anomaly_map for each in found]))


@dataclass(frozen=True, eq=False)
class SizeGroup:
    """Anomalous images with defects of about one size, judged against all normal ones.

    Attributes:
        smallest, largest: share of the image that is anomalous.
        n_anomalous: images.
    """

    smallest: float
    largest: float
    n_anomalous: int
    metrics: Metrics


def metrics_by_size(
    scores: Float[np.ndarray, " n"],
    maps: Sequence[Float[np.ndarray, "_ _"]],
    masks: Sequence[Bool[np.ndarray, "_ _"]],
    is_anomalous: Bool[np.ndarray, " n"],
    groups: int = QUARTILES,
) -> list[SizeGroup]:
    """Metrics of so many groups of equal size, the smallest defects first.

    Args:
        scores: of the images.
        maps: anomaly maps of the sizes of the masks.
        masks: ground truth; all false for normal images.
        is_anomalous: by the label of the image; one whose mask is empty counts as of area 0.
        groups: how many; fewer where there are fewer anomalous images.

    Raises:
        FewShotError: no anomalous image.
    """
    anomalous = np.flatnonzero(is_anomalous)
    if not len(anomalous):
        raise FewShotError("no anomalous image: there are no defects to order by size")
    areas = np.array([mask.mean() for mask in masks])
    order = anomalous[np.argsort(areas[anomalous], kind="stable")]
    return [
        _judged(group, scores, maps, masks, is_anomalous, areas)
        for group in np.array_split(order, min(groups, len(order)))
    ]


def _judged(
    group: Int[np.ndarray, " g"],
    scores: Float[np.ndarray, " n"],
    maps: Sequence[Float[np.ndarray, "_ _"]],
    masks: Sequence[Bool[np.ndarray, "_ _"]],
    is_anomalous: Bool[np.ndarray, " n"],
    areas: Float[np.ndarray, " n"],
) -> SizeGroup:
    places = np.sort(np.concatenate([np.flatnonzero(~is_anomalous), group]))
    truth = prepare_truth([masks[place] for place in places])
    of_pixels = pixel_metrics([maps[place] for place in places], truth)
    return SizeGroup(
        smallest=float(areas[group].min()),
        largest=float(areas[group].max()),
        n_anomalous=len(group),
        metrics=image_metrics(scores[places], is_anomalous[places]) | of_pixels,
    )


def size_facts(
    method: Method, dataset: Dataset, episode: Episode, tiles: Sequence[int]
) -> list[dict[str, Any]]:
    """Every quartile of an episode with images whole and in tiles, as JSON takes it.

    Args:
        method: what judges tiles; neither trained nor fitted.
        dataset: the episode's.
        episode: support and query.
        tiles: how many times larger than a tile the image is shown, one after another.

    Raises:
        FewShotError: tiles do not suit the method, or an anomalous image has no mask.
    """
    return [
        {
            "tiles": factor,
            "smallest": group.smallest,
            "largest": group.largest,
            "n_anomalous": group.n_anomalous,
            **group.metrics.values(),
        }
        for factor in tiles
        for group in _groups(Tiled(inner=method, factor=factor), dataset, episode)
    ]


def _groups(method: Method, dataset: Dataset, episode: Episode) -> list[SizeGroup]:
    (outcome,) = evaluate(method, dataset, [episode])
    query = Query(dataset, episode.query, method.preprocess, EVAL_SIZE)
    masks = [mask for mask in query.masks() if mask is not None]
    if len(masks) < len(query.samples):
        raise FewShotError(
            f"{len(query.samples) - len(masks)} images of {dataset.name}/{episode.target_class} "
            "have no mask: nothing tells how large their defects are"
        )
    maps = [*query.align(outcome.prediction.anomaly_map)]
    scores = outcome.prediction.image_score.numpy()
    return metrics_by_size(scores, maps, masks, query.is_anomalous)
