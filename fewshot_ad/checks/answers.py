"""What every method promises of its scores and maps."""

import math
from dataclasses import replace

import numpy as np
import torch

from fewshot_ad.api import Prediction
from fewshot_ad.checks.promises import (
    require,
    require_close,
    require_finite,
    require_refusal,
    require_same,
    unless_refused,
)
from fewshot_ad.checks.trial import FEW, Make, outcome, query, support, truth, usual
from fewshot_ad.evaluation.metrics import image_metrics

OUTLIER = 50
"""How much stronger than the others an image is that must not matter to them."""


def check_output(make: Make) -> None:
    """Scores and maps: one per image, map the size of the images, float32, finite, on the CPU."""
    prediction = usual(make)
    n, _, height, width = query(make()).shape
    for name, values, shape in (
        ("image_score", prediction.image_score, (n,)),
        ("anomaly_map", prediction.anomaly_map, (n, height, width)),
    ):
        require(values.shape == shape, f"{name} has shape {tuple(values.shape)}, not {shape}")
        require(values.dtype == torch.float32, f"{name} is {values.dtype}, not float32")
        require(values.device.type == "cpu", f"{name} is on {values.device}, not on the CPU")
        require(not values.requires_grad, f"{name} carries gradients")
    require_finite(prediction, "drawn images")


def check_anomalies_score_higher(make: Make) -> None:
    """Anomalous images of a drawn class score higher than normal ones: I-AUROC above one half."""
    scores = usual(make).image_score
    auroc = image_metrics(scores.numpy(), truth(make()).numpy()).i_auroc
    require(auroc is not None and auroc > 0.5, f"I-AUROC on drawn images is {auroc}")


def check_same_seed(make: Make) -> None:
    """Two methods of one seed give the same bits, and leave the global random state alone."""
    expected = usual(make)
    of_torch, of_numpy = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    require_same(expected, outcome(make()), "two runs with one seed")
    require(torch.equal(of_torch, torch.get_rng_state()), "torch's global randomness was used")
    unused = of_numpy == repr(np.random.get_state())  # noqa: NPY002
    require(unused, "NumPy's global randomness was used")


def check_single_image(make: Make) -> None:
    """An image alone scores as in a batch, whatever is in it, unless the track is ``batched``."""
    method = make()
    if method.track == "batched":
        return
    whole, images = outcome(method), query(method)
    beside = method.predict(torch.cat([images[:1], OUTLIER * images[1:FEW]]))
    for index, batch in ((0, whole), (len(images) - 1, whole), (0, beside)):
        here = slice(index, index + 1)
        there = Prediction(batch.image_score[here], batch.anomaly_map[here])
        require_close(method.predict(images[here]), there, f"image {index} alone and in a batch")


def check_no_images(make: Make) -> None:
    """An empty batch has no scores and no maps, or is refused in a way the user understands."""
    method = make()
    images = query(method)[:0]
    prediction = unless_refused(
        lambda: method.fit(support(method)).predict(images), "predict without images"
    )
    if prediction is not None:
        shapes = tuple(prediction.image_score.shape), tuple(prediction.anomaly_map.shape)
        wanted = (0,), (0, *images.shape[-2:])
        require(shapes == wanted, f"no images give shapes {shapes}, not {wanted}")


def check_other_sizes(make: Make) -> None:
    """Images of another size than the support's have maps of theirs, or are refused."""
    method = make()
    images = query(method)[:FEW, :, : method.preprocess.size * 3 // 4]
    prediction = unless_refused(
        lambda: method.fit(support(method)).predict(images), "predict on images of another size"
    )
    if prediction is not None:
        found, wanted = tuple(prediction.anomaly_map.shape), (FEW, *images.shape[-2:])
        require(found == wanted, f"images of another size have maps of shape {found}, not {wanted}")


def check_constant_images(make: Make) -> None:
    """A support without any variation, judged beside another shade, divides nothing by zero."""
    method = make()
    given = support(method)
    dark = torch.zeros_like(given.images)
    images = torch.cat([dark[:1], dark[:1] + 1])
    prediction = unless_refused(
        lambda: method.fit(replace(given, images=dark)).predict(images), "a constant support"
    )
    if prediction is not None:
        require_finite(prediction, "a constant support")


def check_not_finite(make: Make) -> None:
    """A support image with a NaN is refused, whatever else is in it."""
    method = make()
    given = support(method)
    given.images[0, 0, 0, 0] = math.nan
    require_refusal(lambda: method.fit(given), "fit with a NaN in a support image")
