"""Scores of different methods on one scale: how far from what unseen normal images get.

No labels and no query images are needed. A method is fitted on a part of the support and judges the
rest of it; one support image is judged in slightly altered copies. What these get has a mean and a
deviation, for image scores and for pixels, and a score in those units is a z-score.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Method, Prediction, Support

MAX_FOLDS = 8
COPIES = 8
IMAGES_AT_ONCE = 8
LEAST_RELATIVE_SPREAD = 0.05
LARGEST_SHIFT, LARGEST_CHANGE = 1 / 16, 0.05

Source = Literal["held_out", "copies"]


class Scale(NamedTuple):
    """Mean and deviation of the scores of normal images."""

    mean: float = 0.0
    deviation: float = 1.0

    def apply(self, scores: Float[Tensor, "*_"]) -> Float[Tensor, "*_"]:
        """The z-scores."""
        return (scores - self.mean) / self.deviation


class Calibration(NamedTuple):
    """What turns predictions into z-scores; as it comes it changes nothing."""

    image: Scale = Scale()
    pixel: Scale = Scale()

    def apply(self, prediction: Prediction) -> Prediction:
        """The prediction in deviations from what normal images get."""
        return Prediction(
            self.image.apply(prediction.image_score), self.pixel.apply(prediction.anomaly_map)
        )


def calibrate(method: Method, support: Support, source: Source = "held_out") -> Calibration:
    """Learn what a method says of normal images that it was not fitted on.

    Args:
        method: not fitted, and left as it is.
        support: one normal image at least.
        source: ``held_out`` leaves every image out once, in 8 folds at most, and takes copies where
            that would leave fewer images than the method needs, or none; ``copies`` fits on the
            whole support and judges altered copies of it.
    """
    rest = len(support.images) - _largest_fold(len(support.images))
    if source == "copies" or rest < max(1, method.min_shots):
        found = _of_copies(method, support)
    else:
        found = _held_out(method, support)
    scores = torch.cat([each.image_score for each in found])
    pixels = torch.cat([each.anomaly_map.flatten() for each in found])
    return Calibration(scale_of(scores), scale_of(pixels))


def scale_of(scores: Float[Tensor, " n"]) -> Scale:
    """Mean and deviation (ddof 1), the latter kept from being zero by chance.

    Two images may agree by accident, and a division by next to nothing would drown all other
    methods. So a twentieth of the mean counts at least, and 1 where all scores are 0.
    """
    mean = float(scores.double().mean())
    spread = float(scores.double().std()) if len(scores) > 1 else 0.0
    deviation = max(spread, LEAST_RELATIVE_SPREAD * abs(mean))
    return Scale(mean, deviation or 1.0)


def altered_copies(
    images: Float[Tensor, "n 3 h w"],
    count: int,
    generator: torch.Generator,
    largest_shift: float = LARGEST_SHIFT,
) -> Float[Tensor, "m 3 h w"]:
    """Slightly altered copies of all images, ``count`` of each, the copies of one kind together.

    They are moved by up to that share of the side; contrast changes by up to 5 percent, and
    brightness by as much of a channel's deviation.
    """
    reach = int(images.shape[-1] * largest_shift)
    return torch.cat([_altered(images, reach, generator) for _ in range(count)])


def _altered(
    images: Float[Tensor, "n 3 h w"], reach: int, generator: torch.Generator
) -> Float[Tensor, "n 3 h w"]:
    height, width = images.shape[-2:]
    padded = functional.pad(images, (reach,) * 4, mode="replicate")
    top, left = torch.randint(2 * reach + 1, (2,), generator=generator).tolist()
    moved = padded[:, :, top : top + height, left : left + width]
    contrast, brightness = LARGEST_CHANGE * (2 * torch.rand(2, generator=generator) - 1)
    return moved * (1 + contrast.to(images)) + brightness.to(images)


def _of_copies(method: Method, support: Support) -> list[Prediction]:
    generator = torch.Generator().manual_seed(method.seed)
    count = math.ceil(COPIES / len(support.images))
    copies = altered_copies(support.images, count, generator)
    return _predict(method.variant().fit(support), copies)


def _held_out(method: Method, support: Support) -> list[Prediction]:
    images = support.images
    found: list[Prediction] = []
    for fold in torch.arange(len(images)).tensor_split(min(len(images), MAX_FOLDS)):
        rest = Support(support.target_class, _without(images, fold), support.anomalous)
        found += _predict(method.variant().fit(rest), images[fold])
    return found


def _predict(method: Method, images: Float[Tensor, "n 3 h w"]) -> list[Prediction]:
    at_once = len(images) if method.track == "batched" else IMAGES_AT_ONCE
    return [method.predict(part) for part in images.split(at_once)]


def _largest_fold(n_images: int) -> int:
    return math.ceil(n_images / min(n_images, MAX_FOLDS))


def _without(images: Float[Tensor, "n 3 h w"], rows: Tensor) -> Float[Tensor, "m 3 h w"]:
    keep = torch.ones(len(images), dtype=torch.bool)
    keep[rows] = False
    return images[keep]
