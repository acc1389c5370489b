"""What holds for transformers that rebuild features, or colours, of noisy images of one shade."""

from typing import Any

import pytest
import torch
from noisy import noisy_ramps

from fewshot_ad.api import Method, Preprocess, Support
from fewshot_ad.methods import load_method

SMALL: dict[str, Any] = {
    "backbone": "random:tiny",
    "device": "cpu",
    "preprocess": Preprocess(size=64),
    "width": 16,
}
OF_FEATURES = {"heads": 2, "steps": 60}
OWN: dict[str, dict[str, Any]] = {
    "adtr": OF_FEATURES | {"layers": 1, "learning_rate": 3e-3},
    "anovit": {"inner_size": 32, "blur": 1.0, "steps": 100, "learning_rate": 5e-3},
    "dinomaly": OF_FEATURES | {"levels": (2, 3), "blocks": 2},
    "inp_former": OF_FEATURES | {"levels": (2, 3), "blocks": 2},
    "uniad": OF_FEATURES | {"layers": 1, "jitter": 5.0},
}


def fitted(name: str, shots: int, **changes: Any) -> Method:
    method = load_method(name).variant(**(SMALL | OWN[name] | changes))
    return method.fit(Support("shade", noisy_ramps(4)[:shots]))


@pytest.mark.parametrize("name", OWN)
def test_training_brings_what_is_rebuilt_nearer(name: str) -> None:
    images = noisy_ramps(4)
    first = fitted(name, 4, steps=1).predict(images).anomaly_map.mean()
    last = fitted(name, 4).predict(images).anomaly_map.mean()
    assert last < 0.9 * first


@pytest.mark.parametrize("name", OWN)
def test_a_painted_square_lights_up(name: str) -> None:
    whole = noisy_ramps(4)[3:]
    painted = whole.clone()
    painted[:, :, 16:32, 32:48] = 3.0
    found = fitted(name, 2).predict(torch.cat([whole, painted]))
    inside, far_away = found.anomaly_map[1, 16:32, 32:48], found.anomaly_map[1, 48:, :16]
    assert inside.mean() > 1.3 * far_away.mean()
    assert found.image_score[1] > 1.2 * found.image_score[0]
