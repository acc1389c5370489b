from pathlib import Path

import numpy as np
import pytest
import torch
from listening import catch_trainings
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.methods import efficientad
from fewshot_ad.methods.efficientad import EfficientAD
from fewshot_ad.parts.colours import from_unit
from fewshot_ad.parts.feature_cache import load_features


def small(**changes) -> EfficientAD:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=32),
        "width": 8,
        "code": 4,
        "steps": 5,
        "support_views": 4,
        "texture_views": 4,
    }
    return EfficientAD(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(8))


def both_maps(method: EfficientAD, images: Tensor) -> list[np.ndarray]:
    """Mean squared differences of student to teacher and to autoencoder, in double precision."""
    assert method.pair_ is not None
    pair = method.pair_
    (taught,) = load_features("random:tiny", (2,), device="cpu")(images)
    taught = (taught - pair.scale.mean) / pair.scale.deviation
    with torch.no_grad():
        parts, wholes = pair.student(images, (4, 4))
        rebuilt = pair.autoencoder(images, (4, 4))
    pairs = ((taught, parts), (rebuilt, wholes))
    return [((a.double() - b.double()) ** 2).mean(dim=1).numpy() for a, b in pairs]


def test_maps_are_scaled_by_the_quantiles_of_images_that_were_held_out(images: Tensor) -> None:
    method = small(blur=1.5, whole_share=0.5).fit(Support("noise", images[:8]))
    found = method.predict(images[8:])
    total = np.zeros((4, 4))
    held_out = both_maps(method, images[5:6])
    for one, normal in zip(both_maps(method, images[8:]), held_out, strict=True):
        low, high = np.quantile(normal, [0.9, 0.995])
        total += 0.1 * (one[0] - low) / (high - low) / 2
    given = torch.from_numpy(total)[None, None]
    grid = functional.interpolate(given, (32, 32), mode="bilinear")[0, 0].numpy()
    expected = gaussian_filter(grid, 1.5)
    np.testing.assert_allclose(
        found.anomaly_map[0].numpy(), expected, rtol=2e-3, atol=2e-3 * abs(expected).max()
    )
    assert found.image_score[0] == found.anomaly_map.max()


def test_what_was_held_out_is_not_learned_from(images: Tensor) -> None:
    networks = []
    for last in (images[5:6], images[6:7]):
        shown = torch.cat([images[:5], last, images[7:]])
        pair = small().fit(Support("noise", shown)).pair_
        assert pair is not None
        networks.append(torch.nn.utils.parameters_to_vector(pair.parameters()))
    assert torch.equal(*networks)


def test_an_empty_texture_folder_is_refused(images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(FewShotError, match="has no file"):
        small(texture_dir=str(tmp_path)).fit(Support("noise", images[:1]))


def test_the_loss_by_hand(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours are left as they are, and all that is strange is black."""
    monkeypatch.setattr(efficientad, "jittered", lambda colours, _: colours)
    black = torch.zeros(4, 3, 32, 32)
    monkeypatch.setattr(efficientad, "load_textures", lambda *_: lambda *_: black)
    caught = catch_trainings(monkeypatch, efficientad)
    shown = images[:2].clamp(-1.5, 1.5)  # colours from 0 to 1
    small(hard_share=0.25, support_views=2).fit(Support("noise", shown))
    pair, loss, count = caught[0]
    assert count == 2
    (taught,) = load_features("random:tiny", (2,), device="cpu")(shown)
    taught = (taught - pair.scale.mean) / pair.scale.deviation
    parts, wholes = pair.student(shown, (4, 4))
    silent, _ = pair.student(from_unit(black[:1], Preprocess()), (4, 4))
    rebuilt = pair.autoencoder(shown, (4, 4))
    squares = (parts - taught).square().flatten(1).sort(dim=1).values
    worst = squares[:, -squares.shape[1] // 4 :].mean()
    others = [silent, rebuilt - taught, wholes - rebuilt]
    expected = worst + sum(each.square().mean() for each in others)
    found = loss(torch.arange(2), torch.Generator().manual_seed(3))
    assert float(found) == pytest.approx(float(expected), rel=1e-3)
