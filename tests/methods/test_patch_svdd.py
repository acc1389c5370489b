import numpy as np
import pytest
import torch
from listening import hear_losses
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.methods import patch_svdd
from fewshot_ad.methods.patch_svdd import PatchSVDD
from fewshot_ad.parts.patch_encoder import DIRECTIONS


def small(**changes) -> PatchSVDD:
    settings = {
        "device": "cpu",
        "preprocess": Preprocess(size=96),
        "dims": 8,
        "width": 2,
        "steps": 3,
        "pairs_per_step": 32,
    }
    return PatchSVDD(**(settings | changes))


def noise(count: int, size: int = 96, seed: int = 8) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def by_patches(method: PatchSVDD, support: Tensor, image: Tensor, side: int, stride: int):
    """Cut out every patch, encode it alone, look it up, and average over the patches of a pixel."""
    assert method.encoder_ is not None
    number = (32, 64).index(side)

    def codes(of: Tensor) -> np.ndarray:
        rows = []
        for top in range(0, of.shape[1] - side + 1, stride):
            for left in range(0, of.shape[2] - side + 1, stride):
                patch = functional.pad(
                    of[None, :, top : top + side, left : left + side], (0, 64 - side, 0, 64 - side)
                )
                rows.append(method.encoder_(patch)[number][0, :, 0, 0].numpy())
        return np.stack(rows)

    bank = np.concatenate([codes(one) for one in support])
    distances, _ = NearestNeighbors(n_neighbors=1).fit(bank).kneighbors(codes(image))
    total, count, places = np.zeros(image.shape[1:]), np.zeros(image.shape[1:]), iter(distances)
    for top in range(0, image.shape[1] - side + 1, stride):
        for left in range(0, image.shape[2] - side + 1, stride):
            total[top : top + side, left : left + side] += next(places)[0]
            count[top : top + side, left : left + side] += 1
    return total / count


def test_the_map_is_the_product_of_distances_patch_by_patch() -> None:
    support, image = noise(2, 80), noise(1, 80, seed=3)
    method = small().fit(Support("noise", support))
    found = method.predict(image)
    expected = by_patches(method, support, image[0], 32, 4)
    expected *= by_patches(method, support, image[0], 64, 16)
    np.testing.assert_allclose(found.anomaly_map[0].numpy(), expected, rtol=1e-3, atol=1e-6)
    assert found.image_score[0] == found.anomaly_map[0].max()


def test_patches_of_the_support_are_normal() -> None:
    support = noise(2)
    found = small().fit(Support("noise", support)).predict(torch.cat([support, noise(1, seed=9)]))
    assert found.image_score[:2].abs().max() < 1e-3 * found.image_score[2]


def test_the_loss_of_a_step_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs, found = [], []
    draw = patch_svdd.draw_pairs

    def noted(codes, offsets, generator):
        pairs.append((offsets, *draw(codes, offsets, generator)))
        return pairs[-1][1:]

    def one_step(network, loss, count, *_) -> None:
        value = loss(torch.arange(count), torch.Generator().manual_seed(3)).item()
        classifiers, total = list(network)[1:], 0.0
        for number, reach in enumerate((6, 12)):  # three quarters of 32 and 64 pixels, by 4
            (near, *close), (far, *apart) = pairs[2 * number : 2 * number + 2]
            assert near.abs().max() == 2**number
            total += 0.3 * float(
                np.mean([(a - b).norm().item() for a, b in zip(*close, strict=True)])
            )
            logits = classifiers[number](apart[0] - apart[1])
            where = torch.tensor(DIRECTIONS)
            answers = [int((where * reach - one).abs().amax(dim=1).argmin()) for one in far]
            assert (where[answers] * reach - far).abs().max() == reach // 3
            chances = logits.softmax(dim=1)[torch.arange(len(far)), answers]
            total -= float(np.mean(np.log(chances.detach().numpy())))
        found.append((value, total))

    monkeypatch.setattr(patch_svdd, "draw_pairs", noted)
    monkeypatch.setattr(patch_svdd, "train_on_support", one_step)
    small(svdd_weight=0.3, pairs_per_step=200, preprocess=Preprocess(size=128)).fit(
        Support("noise", noise(2, 128))
    )
    assert found[0][0] == pytest.approx(found[0][1], rel=1e-4)


def scene(count: int, seed: int, size: int = 128) -> Tensor:
    """A ramp in both directions under a little noise: where a patch lies can be told."""
    ramp = torch.linspace(-2, 2, size)
    shades = torch.stack([ramp[:, None].expand(size, size), ramp.expand(size, size)])
    picture = torch.cat([shades, shades[:1] * shades[1:]])
    return picture + 0.1 * noise(count, size, seed)


def test_positions_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = hear_losses(monkeypatch, patch_svdd)
    small(steps=60, learning_rate=3e-3, width=4).fit(Support("scene", scene(2, seed=1)))
    assert losses[0] == pytest.approx(2 * np.log(8), rel=0.05)
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


@pytest.mark.parametrize("shots", [1, 3])
def test_a_painted_square_lights_up(shots: int) -> None:
    query = scene(2, seed=2)
    query[1, :, 40:60, 20:40] = 3
    method = small(steps=20, dims=16, width=4).fit(Support("scene", scene(shots, seed=1)))
    found = method.predict(query)
    assert found.image_score[1] > 2 * found.image_score[0]
    row, column = divmod(int(found.anomaly_map[1].argmax()), 128)
    assert 32 <= row < 68
    assert 12 <= column < 48


@pytest.mark.parametrize("size", [64, 67])
def test_images_as_small_as_a_patch_have_no_sides(size: int) -> None:
    images = noise(2, size)
    found = small().fit(Support("noise", images[:1])).predict(images[1:])
    assert found.anomaly_map.shape == (1, size, size)
    assert found.image_score.isfinite().all()


def test_images_smaller_than_a_patch_are_refused() -> None:
    with pytest.raises(FewShotError, match="63x63 pixels are smaller than a patch of 64"):
        small().fit(Support("noise", noise(1, 63)))
    with pytest.raises(FewShotError, match="63x63 pixels are smaller than a patch of 64"):
        small().fit(Support("noise", noise(1))).predict(noise(1, 63))
