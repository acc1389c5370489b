import pytest
import torch
from torch import nn

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.official import load_official_state_dict


def state(levels: int, width: int = 2) -> dict[str, torch.Tensor]:
    names = [(level, name) for level in range(1, levels + 1) for name in ("weight", "bias")]
    shapes = {"weight": (width, width), "bias": (width,)}
    return {
        f"l{level}_proj.{name}": torch.full(shapes[name], float(level)) for level, name in names
    }


def test_every_level_receives_its_own() -> None:
    levels = [nn.Linear(2, 2) for _ in range(11)]
    load_official_state_dict(levels, state(11), "l{level}_proj.")
    for number, level in enumerate(levels, start=1):
        assert level.weight.unique().tolist() == [number]
        assert level.bias.unique().tolist() == [number]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (state(3), "'l3_proj.weight'"),
        (state(1), "Missing key"),
        (state(2, width=3), "size mismatch"),
        ({**state(2), "l1_proj.scale": torch.ones(1)}, "Unexpected key"),
    ],
)
def test_what_does_not_fit_is_named_in_one_line(found, message: str) -> None:
    with pytest.raises(FewShotError, match=message) as error:
        load_official_state_dict([nn.Linear(2, 2) for _ in range(2)], found, "l{level}_proj.")
    assert "\n" not in str(error.value)
