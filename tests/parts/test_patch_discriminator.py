import numpy as np
import pytest
import torch

from fewshot_ad.parts.patch_discriminator import PatchDiscriminator


@pytest.fixture
def network() -> PatchDiscriminator:
    return PatchDiscriminator(channels=3, hidden=5, seed=2).eval()


def test_logits_by_hand(network: PatchDiscriminator) -> None:
    patches = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    network.train()(patches)  # so that the norm's statistics are not those it began with
    network.eval()
    with torch.no_grad():
        network.adapter.weight.mul_(2)
        network.adapter.bias.fill_(0.1)
    first, norm, _, last = network.discriminator
    values = {name: each.double().numpy() for name, each in network.state_dict().items()}
    hidden = (2 * patches.double().numpy() + 0.1) @ values["discriminator.0.weight"].T
    hidden += values["discriminator.0.bias"]
    spread = np.sqrt(values["discriminator.1.running_var"] + norm.eps)
    hidden = (hidden - values["discriminator.1.running_mean"]) / spread
    expected = np.where(hidden > 0, hidden, 0.2 * hidden) @ last.weight.detach().double().numpy().T
    np.testing.assert_allclose(network(patches).detach().numpy(), expected[:, 0], rtol=1e-4)
    assert first.out_features == 5


def test_the_adapter_starts_as_the_identity(network: PatchDiscriminator) -> None:
    patches = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    assert torch.equal(network.adapter(patches), patches)
    assert torch.equal(network(patches), network.judge(patches))


def test_weights_come_from_the_seed_alone() -> None:
    state = torch.get_rng_state()
    one, same, other = (PatchDiscriminator(3, 5, seed).discriminator[0] for seed in (1, 1, 2))
    assert torch.equal(one.weight, same.weight)
    assert not torch.equal(one.weight, other.weight)
    assert torch.equal(state, torch.get_rng_state())
