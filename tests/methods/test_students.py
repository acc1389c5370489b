"""What holds for students and decoders, which learn what a backbone says of the support."""

from importlib import import_module
from typing import Any

import pytest
import torch
from listening import hear_losses
from noisy import noise
from torch.nn import functional

from fewshot_ad.api import Method, Preprocess, Support
from fewshot_ad.methods import load_method

SMALL: dict[str, Any] = {
    "backbone": "random:tiny",
    "device": "cpu",
    "preprocess": Preprocess(size=32),
    "width": 8,
    "support_views": 4,
}
OWN: dict[str, dict[str, Any]] = {
    "efficientad": {"code": 4, "texture_views": 4, "steps": 60},
    "rd4ad": {"levels": (1, 2), "steps": 40},
    "rrd": {"levels": (1, 2), "steps": 30},
    "stfpm": {"levels": (1, 2), "steps": 40},
}


def small(name: str, **changes: Any) -> Method:
    return load_method(name).variant(**(SMALL | OWN[name] | changes))


@pytest.mark.parametrize(
    ("name", "changes"), [*((name, {}) for name in OWN), ("rd4ad", {"cosine": "whole_map"})]
)
def test_the_loss_falls(
    name: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = hear_losses(monkeypatch, import_module(f"fewshot_ad.methods.{name}"))
    small(name, **changes).fit(Support("noise", noise(1)))
    assert sum(heard[-5:]) < 0.9 * sum(heard[:5])


@pytest.mark.parametrize("name", OWN)
def test_one_image_is_enough_and_a_painted_square_lights_up(name: str) -> None:
    smooth = functional.interpolate(noise(1)[:, :, :4, :4], (64, 64), mode="bicubic")
    painted = smooth.clone()
    painted[:, :, 20:36, 20:36] = 3.0
    grid = small(name).fit(Support("clouds", smooth)).predict(painted).anomaly_map[0]
    grid = grid - min(0.0, float(grid.min()))
    inside = torch.zeros(64, 64, dtype=torch.bool)
    inside[20:36, 20:36] = True
    assert grid[inside].mean() > 2 * grid[~inside].mean()
