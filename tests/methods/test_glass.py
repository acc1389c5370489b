import numpy as np
import pytest
import torch
from by_hand import spread
from listening import hear_losses
from noisy import noise
from torch import Tensor

from fewshot_ad.api import FewShotError, Preprocess, Support
from fewshot_ad.methods import glass
from fewshot_ad.methods.glass import GLASS, bounded, draw_blobs, hard_focal_loss
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.patch_discriminator import PatchDiscriminator
from fewshot_ad.parts.patches import extract_patches


def small(**changes) -> GLASS:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=32),
        "hidden": 16,
        "painted_views": 6,
        "steps": 5,
        "vectors_per_step": 64,
    }
    return GLASS(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return noise(4, seed=8)


def logits_by_loops(method: GLASS, image: Tensor) -> Tensor:
    patches = extract_patches(load_features("random:tiny", (2, 3), device="cpu"), image[None], 3)
    assert method.scale_ is not None
    assert method.network_ is not None
    scaled, grid = method.scale_(patches)[0], torch.zeros(patches.shape[2:])
    for row in range(grid.shape[0]):
        for column in range(grid.shape[1]):
            grid[row, column] = method.network_(scaled[None, :, row, column])[0]
    return grid


def test_the_map_is_of_logits(images: Tensor) -> None:
    method = small(blur=0.0).fit(Support("noise", images[:2]))
    found = method.predict(images[2:3])
    grid = logits_by_loops(method, images[2])
    large = torch.nn.functional.interpolate(grid[None, None], (32, 32), mode="bilinear")[0, 0]
    torch.testing.assert_close(found.anomaly_map[0], large, rtol=1e-3, atol=1e-4)
    assert found.image_score[0] == found.anomaly_map[0].max()


def test_the_loss_of_a_step_by_hand(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(glass, "hard_focal_loss", lambda *of: found.append(of) or torch.zeros(()))

    def one_step(network, loss, count, *_) -> None:
        assert count == 2 * 4 * 4
        value = loss(torch.arange(count), torch.Generator().manual_seed(3)).item()
        generator = torch.Generator().manual_seed(3)
        some = torch.randint(6 * 4 * 4, (64,), generator=generator)
        noise = 0.5 * torch.randn(count, 256, generator=generator)
        extract = load_features("random:tiny", (2, 3), device="cpu")
        painted, masks = method._paint(images[:2])
        maps = [extract_patches(extract, of, 3) for of in (images[:2], painted)]
        mean, deviation = spread(maps[0])
        scaled = [((of - mean) / deviation).float() for of in maps]
        clean, others = (of.permute(0, 2, 3, 1).flatten(0, 2) for of in scaled)
        lengths = noise.norm(dim=1, keepdim=True)
        noise *= lengths.clamp(0.85 * 0.5 * 16, 1.7 * 0.5 * 16) / lengths
        network.train()
        logits = network(torch.cat([clean, clean + noise, others[some]])).detach().double()
        normal, moved, last = logits.split([count, count, 64])
        torch.testing.assert_close(found[0][0].double(), last, rtol=1e-3, atol=1e-4)
        cells = masks.view(6, 4, 8, 4, 8).any(dim=4).any(dim=2).flatten()
        assert torch.equal(found[0][1], cells[some])
        by_hand = (1 + normal.exp()).log().mean() + (1 + (-moved).exp()).log().mean()
        found.append((value, float(by_hand)))

    monkeypatch.setattr(glass, "train_on_support", one_step)
    method = small(noise=0.5, ascent_steps=1, ascent_rate=0.0)
    method.fit(Support("noise", images[:2]))
    assert found[1][0] == pytest.approx(found[1][1], rel=1e-3)


def test_ascent_finds_what_the_discriminator_takes_for_normal() -> None:
    generator = torch.Generator().manual_seed(1)
    network = PatchDiscriminator(channels=8, hidden=16, seed=1)
    clean, noise = (torch.randn(50, 8, generator=generator) for _ in range(2))
    before = [each.clone() for each in network.state_dict().values()]
    found = small(noise=1.0, ascent_rate=0.1)._ascended(network, clean, noise.clone())
    assert not found.requires_grad
    for old, new in zip(before, network.state_dict().values(), strict=True):
        assert torch.equal(old, new)
    assert network.discriminator.training
    network.eval()
    length = 8**0.5
    plain = bounded(noise, 0.85 * length, 1.7 * length)
    assert (network.judge(clean + found) < network.judge(clean + plain)).float().mean() > 0.95
    norms = found.norm(dim=1)
    assert norms.min() > 0.849 * length
    assert norms.max() < 1.701 * length


def test_a_step_of_ascent_by_hand() -> None:
    generator = torch.Generator().manual_seed(1)
    network = PatchDiscriminator(channels=4, hidden=6, seed=1).eval()
    clean, noise = (torch.randn(3, 4, generator=generator) for _ in range(2))
    method = small(noise=1.0, ascent_steps=1, ascent_rate=0.05)
    expected = []
    for one, start in zip(clean, noise, strict=True):
        place = start.clone().requires_grad_()
        (-network.judge((one + place)[None]).sigmoid().log()).sum().backward()
        assert place.grad is not None
        moved = start + 0.05 * 2 * place.grad / place.grad.norm()  # 4 channels, a length of 2
        expected.append(moved / moved.norm() * moved.norm().clamp(0.85 * 2, 1.7 * 2))
    found = method._ascended(network, clean, noise)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-3, atol=1e-4)


def test_shifts_keep_their_direction_within_bounds() -> None:
    shifts = torch.tensor([[0.3, 0.4], [0.6, 0.8], [30.0, 40.0]])
    expected = torch.tensor([[0.48, 0.64], [0.6, 0.8], [1.2, 1.6]])
    torch.testing.assert_close(bounded(shifts, 0.8, 2.0), expected)


def test_the_focal_loss_is_of_the_harder_half() -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, -3.0, 1.0])
    wanted = torch.tensor([True, True, False, False, True])
    chances = 1 / (1 + np.exp(-logits.double().numpy()))
    right = np.where(wanted.numpy(), chances, 1 - chances)
    each = np.sort(-((1 - right) ** 2) * np.log(right))
    assert float(hard_focal_loss(logits, wanted)) == pytest.approx(each[-2:].mean(), rel=1e-5)
    assert float(hard_focal_loss(logits[:1], wanted[:1])) > 0


def test_blobs_are_one_drawing_or_two_or_what_they_share() -> None:
    generator = torch.Generator().manual_seed(4)
    blobs = draw_blobs(60, (24, 32), generator)
    generator = torch.Generator().manual_seed(4)
    one, other = (glass.perlin_masks(60, (24, 32), generator, finest=6) for _ in range(2))
    kinds = [0, 0, 0]
    for blob, first, second in zip(blobs, one, other, strict=True):
        choices = [first, first | second, first & second]
        matching = [number for number, each in enumerate(choices) if torch.equal(blob, each)]
        assert matching
        if len(matching) == 1:
            kinds[matching[0]] += 1
    assert min(kinds) > 5


def test_paint_is_where_the_mask_says(images: Tensor) -> None:
    plates = images.clamp(-1.5, 1.5)  # colours from 0 to 1
    painted, masks = small(painted_views=20)._paint(plates[:2])
    changed = ((painted - plates[torch.arange(20) % 2]).abs() > 1e-4).any(dim=1)
    assert not (changed & ~masks).any()
    assert (changed & masks).float().sum() > 0.9 * masks.sum() > 0


def test_training_lowers_the_loss(images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = hear_losses(monkeypatch, glass)
    small(steps=60, noise=3.0, learning_rate=1e-3).fit(Support("noise", images))
    assert np.mean(losses[-5:]) < 0.8 * losses[0]


@pytest.mark.parametrize("shots", [1, 4])
def test_a_painted_square_lights_up(shots: int) -> None:
    def plates(count: int, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return 0.2 * torch.randn(count, 3, 128, 128, generator=generator)

    query = plates(3, seed=2)
    query[2, :, 24:40, 8:24] += 1.5
    settings = {"steps": 60, "vectors_per_step": 256, "hidden": 64, "painted_views": 16}
    method = small(backbone="tiny", noise=1.0, learning_rate=1e-3, **settings)
    found = method.fit(Support("plate", plates(shots, seed=1))).predict(query)
    assert found.image_score[2] > found.image_score[:2].max()
    here, far_away = found.anomaly_map[2, 24:40, 8:24], found.anomaly_map[2, :, 112:]
    assert here.mean() > far_away.mean() + 0.5


def test_an_empty_texture_folder_is_refused(images: Tensor, tmp_path) -> None:
    with pytest.raises(FewShotError, match="has no file"):
        small(texture_dir=str(tmp_path)).fit(Support("noise", images))
