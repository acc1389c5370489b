from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from fewshot_ad.parts.backbones import load_backbone
from fewshot_ad.parts.tiny import CHANNELS, WEIGHTS, Tiny

# mean, spread and one value of every level for ``pattern()``
GOLDEN = [(0.01149, 0.19627, -0.20881), (-0.00603, 0.12103, -0.43676), (0.00616, 0.11941, 1.07753)]
EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def pattern() -> Tensor:
    """An image from a formula: rings of three periods."""
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    radius = torch.hypot(rows - 40, columns - 50)
    return torch.stack([torch.sin(radius / period) for period in (2, 5, 11)])[None]


def stripes(shift: float = 0.0) -> Tensor:
    columns = torch.arange(128.0).expand(3, 128, 128)
    return torch.sin((columns + shift) / 3)[None]


def test_the_weights_fit_the_wheel():
    assert WEIGHTS.stat().st_size <= 4_000_000
    assert {value.dtype for value in load_file(WEIGHTS).values()} == {torch.float16}


def test_the_features_are_those_that_were_shipped():
    for level, (mean, spread, corner) in zip(load_backbone("tiny")(pattern()), GOLDEN, strict=True):
        found = torch.stack([level.mean(), level.std(), level[0, 0, 3, 3]])
        assert torch.allclose(found, torch.tensor([mean, spread, corner]), atol=1e-4)


def test_every_level_has_the_variance_of_the_others():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(8, 3, 16, 16, generator=generator)
    images = functional.interpolate(coarse, size=128, mode="bicubic")
    for level in load_backbone("tiny")(images):
        assert 0.05 < level.var(dim=(0, 2, 3)).sum() < 5


def test_a_spot_on_stripes_is_what_differs_most():
    backbone = load_backbone("tiny", levels=(2,))
    broken = stripes(shift=1.0)
    broken[:, :, 56:72, 80:96] = 0.0
    bank = torch.cat([backbone(stripes(shift))[0] for shift in range(4)])
    rows = bank.permute(0, 2, 3, 1).flatten(0, 2)
    queries = backbone(broken)[0][0].flatten(1).T
    farthest = int(torch.cdist(queries, rows).amin(1).argmax())
    row, column = divmod(farthest, 16)
    assert 6 <= row <= 9
    assert 9 <= column <= 12


def test_folding_changes_nothing_but_the_form():
    torch.manual_seed(0)
    network = Tiny()
    network.train()(torch.randn(4, 3, 64, 64))  # so that the norms are not the identity
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before = network.eval()(images)
        after = network.fold()(images)
    assert not any("norm" in name for name in network.state_dict())
    for one, other, channels in zip(before, after, CHANNELS, strict=True):
        assert one.shape[1] == channels
        assert torch.allclose(one, other, atol=1e-5)


def test_a_drawn_image_is_a_function_of_its_number(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    from drawn_images import draw

    first = [draw(index, size=64) for index in range(12)]
    again = [draw(index, size=64) for index in reversed(range(12))][::-1]
    for one, other in zip(first, again, strict=True):
        assert one.shape == (64, 64, 3)
        assert one.dtype == np.uint8
        assert (one == other).all()
    assert len({image.tobytes() for image in first}) == 12


def test_the_compression_is_the_principal_components(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    from distil_tiny import compression_of

    rows = torch.randn(500, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 7)
    extended = torch.cat([rows, torch.ones(500, 1)], 1).double()
    found = compression_of(extended.T @ extended, 3)
    centred = (rows - rows.mean(0)).numpy()
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    wanted = centred @ directions[:3].T / np.sqrt((singular[:3] ** 2).sum() / 500)
    projected = found(rows.T[None, :, :, None])[0, :, 0].numpy()
    assert np.allclose(np.abs(projected), np.abs(wanted), atol=1e-4)
    assert found.kept == pytest.approx((singular[:3] ** 2).sum() / (singular**2).sum(), abs=1e-6)
    assert projected.var(0).sum() == pytest.approx(1, abs=1e-4)
