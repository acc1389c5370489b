import numpy as np
import pytest
import torch
from scipy.ndimage import correlate1d
from torch import Tensor, nn

from fewshot_ad.parts.pyramid_couplings import (
    ScaleFlow,
    Volume,
    compose,
    decompose,
    enlarge,
    halve,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def stirred(flow: ScaleFlow, seed: int = 1) -> ScaleFlow:
    """With weights that no longer leave everything as it is."""
    generator = torch.Generator().manual_seed(seed)
    for weight in flow.parameters():
        nn.init.normal_(weight, std=0.3, generator=generator)
    return flow


def blurred(image: np.ndarray) -> np.ndarray:
    for axis in (0, 1):
        image = correlate1d(image, np.array([1, 4, 6, 4, 1]) / 16, axis, mode="nearest")
    return image


def test_halving_is_every_second_position_of_a_binomial_blur() -> None:
    maps = noise(2, 3, 7, 10)
    for ours, image in zip(halve(maps).flatten(0, 1), maps.flatten(0, 1), strict=True):
        np.testing.assert_allclose(ours, blurred(image.numpy())[::2, ::2], atol=1e-6)


def test_enlarging_repeats_and_blurs() -> None:
    maps, like = noise(1, 1, 3, 4), torch.zeros(1, 1, 6, 8)
    repeated = maps[0, 0].numpy().repeat(2, axis=0).repeat(2, axis=1)
    np.testing.assert_allclose(enlarge(maps, like)[0, 0], blurred(repeated), atol=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (7, 13), (1, 2)])
def test_composing_undoes_decomposing(size: tuple[int, int]) -> None:
    maps = noise(2, 3, *size)
    pyramid = decompose(maps, 4)
    assert len(pyramid) == 4
    torch.testing.assert_close(compose(pyramid), maps)


def test_plain_maps_have_no_detail() -> None:
    *finer, coarsest = decompose(torch.full((1, 2, 16, 16), 5.0), 3)
    assert max(float(detail.abs().max()) for detail in finer) < 1e-5
    torch.testing.assert_close(coarsest, torch.full((1, 2, 4, 4), 5.0))


def test_a_fresh_flow_only_rotates_channels() -> None:
    pyramid = decompose(noise(2, 4, 8, 8), 3)
    for before, after in zip(pyramid, ScaleFlow(4, 3, 2, 3)(pyramid), strict=True):
        torch.testing.assert_close(after.norm(dim=1), before.norm(dim=1))
        assert not torch.allclose(after, before)


@pytest.mark.parametrize("volume", ["channel", "spatial"])
@pytest.mark.parametrize("scales", [2, 3, 4])
def test_it_is_undone_by_its_inverse(volume: Volume, scales: int) -> None:
    flow = stirred(ScaleFlow(3, scales, blocks=2, kernel=3, volume=volume).double())
    pyramid = decompose(noise(2, 3, 9, 6).double(), scales)
    latents = flow(pyramid)
    assert not torch.allclose(latents[0].norm(dim=1), pyramid[0].norm(dim=1))
    for found, expected in zip(flow.inverse(latents), pyramid, strict=True):
        torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize("volume", ["channel", "spatial"])
def test_it_keeps_volume(volume: Volume) -> None:
    flow = stirred(ScaleFlow(2, 2, blocks=2, kernel=3, volume=volume).double())
    shapes = [(1, 2, 4, 4), (1, 2, 2, 2)]
    sizes = [32, 8]

    def flat(values: Tensor) -> Tensor:
        pyramid = [part.view(s) for part, s in zip(values.split(sizes), shapes, strict=True)]
        return torch.cat([each.flatten() for each in flow(pyramid)])

    jacobian = torch.autograd.functional.jacobian(flat, noise(40).double())
    assert torch.linalg.slogdet(jacobian).logabsdet.item() == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize(("moved", "changed"), [(0, [0, 1]), (1, [0, 1, 2]), (2, [1, 2])])
def test_in_one_step_a_scale_moves_its_neighbours(moved: int, changed: list[int]) -> None:
    flow = stirred(ScaleFlow(2, 3, blocks=1, kernel=3))
    pyramid = decompose(noise(1, 2, 8, 8), 3)
    other = [each + (place == moved) for place, each in enumerate(pyramid)]
    pairs = zip(flow(pyramid), flow(other), strict=True)
    assert [place for place, (a, b) in enumerate(pairs) if not torch.allclose(a, b)] == changed


def test_a_seed_tells_the_weights_and_nothing_global_moves() -> None:
    state = torch.get_rng_state()
    one, same, other = (ScaleFlow(2, 2, 1, 3, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    pairs = zip(one.state_dict().values(), same.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    rotations = [flow.couplings[0].rotations for flow in (one, other)]
    assert not torch.equal(*rotations)
