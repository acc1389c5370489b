import pytest
import torch
from torch.nn import functional

from fewshot_ad.parts.constraintors import (
    ConvConstraintor,
    IdentityConstraintor,
    TokenConstraintor,
    build_constraintor,
)


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


def test_conv_constraintor_by_hand() -> None:
    constraintor, maps = ConvConstraintor(3).train(), torch.randn(4, 3, 5, 6)
    weights = constraintor.state_dict()
    raw = functional.conv2d(maps, weights["conv.weight"], weights["conv.bias"], padding=1)
    mean = raw.mean(dim=(0, 2, 3), keepdim=True)
    variance = raw.var(dim=(0, 2, 3), keepdim=True, unbiased=False)
    expected = ((raw - mean) / (variance + 1e-5).sqrt()).clamp(min=0)
    torch.testing.assert_close(constraintor(maps), expected)


def test_identity_constraintor_starts_there_and_can_leave() -> None:
    before = torch.get_rng_state()
    constraintor = build_constraintor("identity", 3, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert isinstance(constraintor, IdentityConstraintor)
    maps = torch.randn(2, 3, 4, 5)
    assert torch.equal(constraintor(maps), maps)
    constraintor(maps).square().sum().backward()
    assert constraintor.conv.weight.grad is not None
    assert constraintor.conv.weight.grad.any()
    torch.nn.init.ones_(constraintor.conv.weight)
    expected = maps[0, :, 1, 1] + maps[0, :, 0:3, 0:3].sum()
    torch.testing.assert_close(constraintor(maps)[0, :, 1, 1], expected)


def test_constraintors_by_kind() -> None:
    maps = torch.randn(2, 3, 4, 5)
    assert torch.equal(build_constraintor("none", 3, seed=0)(maps), maps)
    conv, expected = build_constraintor("conv", 3, seed=7), ConvConstraintor(3, seed=7)
    assert torch.equal(conv(maps), expected(maps))


def test_token_constraintor_by_hand() -> None:
    constraintor, maps = TokenConstraintor(4), torch.randn(2, 4, 3, 2)
    w = constraintor.state_dict()
    ours = constraintor(maps)
    for image in range(2):
        tokens = [maps[image, :, row, column] for row in range(3) for column in range(2)]
        hidden = [w["fc1.weight"] @ token + w["fc1.bias"] for token in tokens]
        squeezed = w["se.fc1.weight"] @ (sum(hidden) / 6) + w["se.fc1.bias"]
        gate = torch.sigmoid(w["se.fc2.weight"] @ squeezed.clamp(min=0) + w["se.fc2.bias"])
        for number, vector in enumerate(hidden):
            out = w["fc2.weight"] @ functional.gelu(vector * gate) + w["fc2.bias"]
            torch.testing.assert_close(ours[image, :, number // 2, number % 2], out)


@pytest.mark.parametrize(("channels", "width"), [(1280, 320), (16, 8), (96, 24)])
def test_width_of_the_gate(channels: int, width: int) -> None:
    with torch.device("meta"):
        gate = TokenConstraintor(channels).se.fc1
    assert gate.out_features == width


@pytest.mark.parametrize("kind", [ConvConstraintor, TokenConstraintor])
def test_same_seed_same_weights(kind) -> None:
    before = torch.get_rng_state()
    first, again, other = (kind(8, seed=seed).state_dict() for seed in (4, 4, 5))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)
