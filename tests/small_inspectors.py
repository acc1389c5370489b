"""Inspectors that are made in no time: no refits, and flows whose constants are drawn."""

import numpy as np
import torch
from painted import Painted

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.images import prepare
from fewshot_ad.inspection import Inspector
from fewshot_ad.inspection.choosing import stacked
from fewshot_ad.inspection.photos import Photo, square_of
from fewshot_ad.inspection.thresholds import Calibration, Rule
from fewshot_ad.methods import load_method
from fewshot_ad.parts.level_models import LevelModels

PLATES = Painted()
TINY = Preprocess(size=32)
FLOW = {"flow_blocks": 2, "channels": 24}
MADE = {
    "patchcore": {"unit_length": True, "blur": 1.0},
    "padim": {"channels": 20, "levels": (1, 2)},
    "residual_distance": {"neighbourhood": 3},
    "simplenet": {"steps": 3, "hidden": 16},
    "resad": FLOW,
    "resad_pp": FLOW,
}


def squares():
    photos = [PLATES.read_image(sample) for sample in PLATES.train("plate")[:3]]
    return [square_of(Photo("x", each), TINY) for each in photos]


def made(name, **changes):
    """An inspector without its calibration, which takes refits; a flow with random constants."""
    method = load_method(name, backbone="random:tiny", preprocess=TINY, device="cpu", **changes)
    if name.startswith("resad"):
        method.models_ = shaken(method._build())
    normals = squares()
    method.fit(Support("plate", stacked(normals, method)))
    scores = tuple(method.predict(stacked(normals, method)).image_score.tolist())
    calibration = Calibration("held_out", tuple(s + 1 for s in scores), scores, 0.0)
    return Inspector(
        name="plate",
        method=method,
        normals=("a", "b", "c"),
        squares=normals,
        views=tuple(Photo("x", each).view for each in photos()),
        calibration=calibration,
        rule=Rule(0.01),
    )


def shaken(models: LevelModels) -> LevelModels:
    """As if meta-trained: nothing is at its first value, and the peak is finite."""
    generator = torch.Generator().manual_seed(3)
    for name, value in models.eval().state_dict().items():
        if value.is_floating_point() and "w_perm" not in name:
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(noise if value.isinf().any() else value + 0.05 * noise)
    models.share.fill_(0.5)
    return models


def photos():
    return [PLATES.read_image(sample) for sample in PLATES.test("plate")]


def colours():
    """What a graph eats, without a line of the package's own arithmetic."""
    images = np.stack([square_of(Photo("x", each), TINY) for each in photos()])
    return (images.transpose(0, 3, 1, 2) / np.float32(255)).astype(np.float32)


def assert_same(inspector, score, anomaly_map):
    wanted = inspector.method.predict(torch.stack([prepare(each, TINY) for each in photos()]))
    np.testing.assert_allclose(score, wanted.image_score, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(anomaly_map, wanted.anomaly_map, rtol=1e-4, atol=2e-5)
