import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.conv_flows import ConvCoupling, ConvFlow, log_likelihood_map


def stirred(flow: ConvFlow) -> ConvFlow:
    """The flow in float64, its weights far from those of a fresh one."""
    generator = torch.Generator().manual_seed(9)
    for weight in flow.parameters():
        weight.data += 0.3 * torch.randn(weight.shape, generator=generator)
    return flow.double()


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("channels", "kernels"), [(4, (3, 1)), (5, (3,)), (2, (1,))])
def test_forward_has_an_inverse_and_the_right_determinant(
    channels: int, kernels: tuple[int, ...]
) -> None:
    flow = stirred(ConvFlow(channels, 3, kernels))
    maps = noise(2, channels, 3, 2)
    latents, logdet = flow(maps)
    back, logdet_back = flow.inverse(latents)
    torch.testing.assert_close(back, maps)
    torch.testing.assert_close(logdet_back, -logdet)
    for number in range(2):
        single = maps[number : number + 1]
        jacobian = torch.autograd.functional.jacobian(lambda one: flow(one)[0], single)
        size = single.numel()
        expected = torch.linalg.slogdet(jacobian.reshape(size, size)).logabsdet
        torch.testing.assert_close(logdet[number].sum(), expected)


def test_a_step_position_by_position() -> None:
    order = torch.tensor([2, 0, 1])
    step = ConvCoupling(3, 4, 1, 0.7, order).double().requires_grad_(requires_grad=False)
    for weight in step.parameters():
        weight.data = noise(*weight.shape)
    maps = noise(1, 3, 2, 2)
    latents, logdet = step(maps)
    first, _, last = step.subnet
    for row, column in np.ndindex(2, 2):
        a, b, c = maps[0, :, row, column].tolist()
        hidden = first.weight[:, :, 0, 0] @ torch.tensor([a, b]).double() + first.bias
        raw, shift = (last.weight[:, :, 0, 0] @ hidden.relu() + last.bias).tolist()
        log_scale = 0.7 * math.tanh(raw / 0.7)
        gains, offsets = step.log_gain.flatten().tolist(), step.offset.flatten().tolist()
        moved = [a, b, c * math.exp(log_scale) + shift]
        moved = [v * math.exp(g) + o for v, g, o in zip(moved, gains, offsets, strict=True)]
        expected = [moved[place] for place in order.tolist()]
        assert latents[0, :, row, column].tolist() == pytest.approx(expected)
        assert float(logdet[0, row, column]) == pytest.approx(log_scale + sum(gains))


def test_a_fresh_flow_only_changes_places() -> None:
    maps = noise(1, 6, 4, 4).float()
    latents, logdet = ConvFlow(6, 5)(maps)
    assert not logdet.any()
    assert torch.equal(latents.sort(dim=1).values, maps.sort(dim=1).values)
    assert not torch.equal(latents, maps)
    same, logdet = ConvFlow(6, 0)(maps)
    assert torch.equal(same, maps)
    assert not logdet.any()


def test_kernels_take_turns_and_a_position_sees_as_far_as_they_reach() -> None:
    flow = stirred(ConvFlow(4, 3, (3, 1), hidden_ratio=0.5))
    sides = [step.subnet[0].kernel_size[0] for step in flow.couplings]
    assert sides == [3, 1, 3]
    assert flow.couplings[0].subnet[0].out_channels == 1
    maps = noise(1, 4, 11, 11)
    changed = maps.clone()
    changed[0, :, 5, 5] += 1
    moved = (flow(changed)[0] - flow(maps)[0]).abs().amax(dim=(0, 1)) > 0
    rows, columns = moved.nonzero().T
    assert (int(rows.min()), int(rows.max())) == (1, 9)  # 2 per 3x3 step
    assert (int(columns.min()), int(columns.max())) == (1, 9)


def test_log_likelihood_of_every_position() -> None:
    latents, logdet = noise(2, 3, 2, 4), noise(2, 2, 4)
    expected = (torch.distributions.Normal(0, 1).log_prob(latents).sum(dim=1) + logdet) / 3
    torch.testing.assert_close(log_likelihood_map(latents, logdet), expected)


def test_same_seed_same_flow_and_global_generators_untouched() -> None:
    of_torch, of_numpy = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    first, again, other = (ConvFlow(8, 2, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), of_torch)
    assert repr(np.random.get_state()) == of_numpy  # noqa: NPY002
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["couplings.0.order"], other["couplings.0.order"])
    assert not torch.equal(
        first["couplings.0.subnet.0.weight"], other["couplings.0.subnet.0.weight"]
    )


def test_one_channel_is_refused() -> None:
    with pytest.raises(FewShotError, match="features have 1 channel: a flow couples two or more"):
        ConvFlow(1)
