import math

import numpy as np
import pytest
import torch
from torch import Tensor, distributions

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.flows import (
    ConditionalFlow,
    abnormal_probability,
    draw_rotation,
    log_likelihood,
    position_code,
    position_vectors,
)
from fewshot_ad.parts.maps import to_vectors


@pytest.fixture(autouse=True)
def _same_numbers_every_time() -> None:
    torch.manual_seed(0)


def stirred(flow: ConditionalFlow) -> ConditionalFlow:
    """The flow in float64, its weights large enough to be far from a rotation."""
    generator = torch.Generator().manual_seed(9)
    for name, weight in flow.named_parameters():
        if "w_perm" not in name:
            weight.data += 0.5 * torch.randn(weight.shape, generator=generator)
    return flow.double()


@pytest.mark.parametrize(("channels", "dims"), [(6, 4), (7, 4), (6, 0)])
def test_forward_has_an_inverse_and_the_right_determinant(channels: int, dims: int) -> None:
    flow = stirred(ConditionalFlow(channels, blocks=3, condition_dims=dims))
    vectors = torch.randn(5, channels, dtype=torch.float64)
    condition = torch.randn(5, dims, dtype=torch.float64) if dims else None
    latents, logdet = flow(vectors, condition)
    back, logdet_back = flow.inverse(latents, condition)
    torch.testing.assert_close(back, vectors, rtol=0, atol=1e-4)  # rotations are orthogonal to 1e-6
    torch.testing.assert_close(logdet_back, -logdet, rtol=0, atol=1e-4)
    for number in range(5):
        own = None if condition is None else condition[number : number + 1]

        def single(vector: Tensor, own: Tensor | None = own) -> Tensor:
            return flow(vector[None], own)[0][0]

        jacobian = torch.autograd.functional.jacobian(single, vectors[number])
        expected = torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(logdet[number], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("blocks", [0, 1, 3])
@pytest.mark.parametrize(("channels", "dims"), [(6, 4), (7, 8), (6, 0)])
def test_on_a_grid_all_positions_have_what_each_has_with_its_code(
    channels: int, dims: int, blocks: int
) -> None:
    flow = stirred(ConditionalFlow(channels, blocks=blocks, condition_dims=dims))
    maps = torch.randn(2, channels, 3, 5, dtype=torch.float64)
    codes = position_vectors(dims, 2, 3, 5).double() if dims else None
    latents, logdet = flow.on_grid(maps)
    expected = flow(to_vectors(maps), codes)
    torch.testing.assert_close(latents, expected[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(logdet, expected[1], rtol=0, atol=1e-6)


def test_gradients_on_a_grid_are_those_of_the_vectors() -> None:
    flow = stirred(ConditionalFlow(6, blocks=2, condition_dims=4))
    maps = torch.randn(1, 6, 3, 4, dtype=torch.float64)
    found = []
    for latents, logdet in (
        flow.on_grid(maps),
        flow(to_vectors(maps), position_vectors(4, 1, 3, 4).double()),
    ):
        flow.zero_grad()
        log_likelihood(latents, logdet).sum().backward()
        found.append([weight.grad for weight in flow.parameters() if weight.grad is not None])
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)


def test_same_seed_same_flow_and_global_generators_untouched() -> None:
    numpy_before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, again, other = (ConditionalFlow(8, 2, 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert not torch.equal(
        first.state_dict()["inn.module_list.0.w_perm"],
        other.state_dict()["inn.module_list.0.w_perm"],
    )


def test_widths_of_the_subnet_follow_the_paper() -> None:
    flow = ConditionalFlow(7, blocks=8, condition_dims=256)
    shapes = {name: tuple(weight.shape) for name, weight in flow.named_parameters()}
    assert shapes["inn.module_list.7.subnet.0.weight"] == (520, 260)
    assert shapes["inn.module_list.7.subnet.2.weight"] == (6, 520)
    assert "inn.module_list.8.global_scale" not in shapes


def test_a_fresh_flow_is_nearly_a_rotation() -> None:
    flow = ConditionalFlow(32, condition_dims=0)
    vectors = torch.randn(10, 32, generator=torch.Generator().manual_seed(0))
    latents, logdet = flow(vectors)
    assert logdet.abs().max() < 0.1 * 32
    torch.testing.assert_close(latents.norm(dim=1), vectors.norm(dim=1), rtol=0.1, atol=0)


def test_rotation_is_orthogonal_and_fixed_in_training() -> None:
    rotation = draw_rotation(50, torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(50), rtol=0, atol=1e-5)
    flow = ConditionalFlow(4, 2, 0)
    assert not any(w.requires_grad for name, w in flow.named_parameters() if "w_perm" in name)


def test_rotations_have_no_favourite_direction() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.stack([draw_rotation(3, generator) for _ in range(2000)])
    assert corners.mean(dim=0).abs().max() < 0.06
    torch.testing.assert_close(
        corners.square().mean(dim=0), torch.full((3, 3), 1 / 3), rtol=0, atol=0.03
    )


@pytest.mark.parametrize("centre", [0.0, 1.0])
def test_log_likelihood_per_channel(centre: float) -> None:
    latents, logdet = torch.randn(6, 5), torch.randn(6)
    gaussian = distributions.Normal(centre, 1.0)
    expected = (gaussian.log_prob(latents).sum(dim=1) + logdet) / 5
    torch.testing.assert_close(log_likelihood(latents, logdet, centre), expected)


def test_abnormal_probability_is_a_softmax() -> None:
    latents, logdet = torch.randn(6, 5), torch.randn(6)
    both = torch.stack([log_likelihood(latents, logdet, centre) for centre in (0.0, 1.0)])
    torch.testing.assert_close(abnormal_probability(latents), both.softmax(dim=0)[1])


def test_position_code_by_its_formula() -> None:
    code = position_code(12, 4, 5)
    for pair in range(3):
        rate = 1e4 ** (-2 * pair / 6)
        assert float(code[2 * pair, 3, 2]) == pytest.approx(math.sin(2 * rate), abs=1e-6)
        assert float(code[2 * pair + 1, 3, 2]) == pytest.approx(math.cos(2 * rate), abs=1e-6)
        assert float(code[6 + 2 * pair, 3, 2]) == pytest.approx(math.sin(3 * rate), abs=1e-6)
        assert float(code[7 + 2 * pair, 3, 2]) == pytest.approx(math.cos(3 * rate), abs=1e-6)


def test_position_vectors_lie_like_the_vectors_of_maps() -> None:
    expected = to_vectors(position_code(8, 3, 4).expand(2, 8, 3, 4))
    assert torch.equal(position_vectors(8, 2, 3, 4), expected)


def test_weights_of_another_flow_are_refused_in_one_line() -> None:
    flow, other = ConditionalFlow(6, 2, 4), ConditionalFlow(8, 2, 4)
    with pytest.raises(FewShotError, match="do not fit") as error:
        flow.load_official_state_dict(other.inn.state_dict())
    assert "\n" not in str(error.value)
