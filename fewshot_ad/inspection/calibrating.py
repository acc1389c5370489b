"""What a method says of normals that it was not fitted on, by refits without them."""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.api import FewShotError, Method, Prediction, Support
from fewshot_ad.evaluation.identity import method_name
from fewshot_ad.inspection.thresholds import Calibration, Source
from fewshot_ad.parts.calibration import altered_copies

MOST_REFITS = 32
COPIES = 16
COPIES_OF_EACH = 4
AT_ONCE = 8


class Judged(NamedTuple):
    """Scores and maps of some normals, and of altered copies of them."""

    plain: Prediction
    altered: Prediction


def calibrate(
    method: Method,
    support: Support,
    *,
    altered: bool = False,
    on_refit: Callable[[], None] | None = None,
) -> Calibration:
    """Judge every normal after a refit without it; altered copies where there are too few.

    Args:
        method: refitted on parts of the support, and in the end on none in particular.
        support: the normals.
        altered: judge altered copies of what is left out, too, for a tail.
        on_refit: told after every refit.
    """
    n = len(support.images)
    folds = torch.arange(n).tensor_split(min(n, MOST_REFITS))
    if n - len(folds[0]) < max(1, method.min_shots):
        return _of_copies(method, support, on_refit)
    generator = torch.Generator().manual_seed(method.seed)
    judged: list[Judged] = []
    for fold in folds:
        keep = torch.ones(n, dtype=torch.bool).index_fill(0, fold, value=False)
        method.fit(Support(support.target_class, support.images[keep]))
        out = support.images[fold]
        copies = _relit(out, generator) if altered else out[:0]
        judged.append(Judged(predict_all(method, out), predict_all(method, copies)))
        if on_refit is not None:
            on_refit()
    return _calibration("leave_one_out" if len(folds) == n else "folds", judged)


def calibrate_held_out(method: Method, images: Float[Tensor, "n 3 h w"]) -> Calibration:
    """Judge normals that the method, fitted, has never seen."""
    none = predict_all(method, images[:0])
    return _calibration("held_out", [Judged(predict_all(method, images), none)])


def predict_all(method: Method, images: Float[Tensor, "n 3 h w"]) -> Prediction:
    """Predictions of all images, a few at a time."""
    found = [method.predict(part) for part in images.split(AT_ONCE)] if len(images) else []
    for each in found:
        check_finite(each, method)
    return Prediction(
        torch.cat([each.image_score for each in found]) if found else torch.empty(0),
        torch.cat([each.anomaly_map for each in found]) if found else images[:, 0],
    )


def joined_calibration(one: Calibration, other: Calibration) -> Calibration:
    """Both together; the floor, a median, in proportion."""
    n, m = len(one.scores), len(other.scores)
    return Calibration(
        one.source,
        one.scores + other.scores,
        one.peaks + other.peaks,
        (n * one.floor + m * other.floor) / (n + m),
    )


def check_finite(prediction: Prediction, method: Method) -> None:
    """Refuse what is no number, before anything is decided by it.

    Raises:
        FewShotError: a score or a map is NaN or infinite.
    """
    if not (prediction.image_score.isfinite().all() and prediction.anomaly_map.isfinite().all()):
        raise FewShotError(
            f"{method_name(method)} gave NaN or infinite scores; check its weights and parameters"
        )


def _relit(
    images: Float[Tensor, "n 3 h w"], generator: torch.Generator
) -> Float[Tensor, "m 3 h w"]:
    """Copies in other light.

    They are not moved: a made-up border scores higher than any photo, and would be all that a tail
    is fitted to.
    """
    return altered_copies(images, COPIES_OF_EACH, generator, largest_shift=0.0)


def _of_copies(
    method: Method, support: Support, on_refit: Callable[[], None] | None
) -> Calibration:
    generator = torch.Generator().manual_seed(method.seed)
    count = ceil(COPIES / len(support.images))
    copies = altered_copies(support.images, count, generator)
    judged = predict_all(method.fit(support), copies)
    if on_refit is not None:
        on_refit()
    return _calibration("copies", [Judged(judged, predict_all(method, copies[:0]))])


def _calibration(source: Source, judged: list[Judged]) -> Calibration:
    pixels = torch.cat([each.plain.anomaly_map.flatten() for each in judged])
    return Calibration(
        source,
        scores=_listed([each.plain.image_score for each in judged]),
        peaks=_listed([_peaks(each.plain) for each in judged]),
        floor=float(pixels.median()),
        altered_scores=_listed([each.altered.image_score for each in judged]),
        altered_peaks=_listed([_peaks(each.altered) for each in judged]),
    )


def _peaks(prediction: Prediction) -> Float[Tensor, " b"]:
    return prediction.anomaly_map.flatten(1).amax(dim=1)


def _listed(parts: list[Float[Tensor, " _"]]) -> tuple[float, ...]:
    return tuple(torch.cat(parts).tolist())
