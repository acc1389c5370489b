import numpy as np
import pytest
import torch
from by_hand import turning_map, whole_turns
from listening import catch_trainings
from noisy import noisy_ramps
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods import dinomaly
from fewshot_ad.methods.dinomaly import Dinomaly, loosened
from fewshot_ad.parts.feature_cache import load_features


def small(**changes) -> Dinomaly:
    settings = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=64),
        "levels": (2, 3),
        "width": 16,
        "heads": 2,
        "blocks": 2,
        "steps": 3,
    }
    return Dinomaly(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return noisy_ramps(4)


def test_the_decoder_is_a_bottleneck_and_blocks_whose_ends_are_levels(images: Tensor) -> None:
    method = small().fit(Support("plate", images[:2]))
    decoder = method.decoder_
    assert decoder is not None
    targets = decoder.targets(load_features("random:tiny", (2, 3), device="cpu")(images[2:]))
    tokens = torch.cat(targets, dim=1).flatten(2).mT @ decoder.join.weight.T
    hidden = functional.gelu(decoder.into(tokens))
    first = decoder.blocks[0](decoder.out(hidden))
    second = decoder.blocks[1](first)
    shallow, deep = decoder(targets)
    torch.testing.assert_close(shallow.flatten(2).mT, decoder.heads[0](second))
    torch.testing.assert_close(deep.flatten(2).mT, decoder.heads[1](first))


def test_dropout_is_of_training_alone_and_hits_the_bottleneck_twice(images: Tensor) -> None:
    method = small().fit(Support("plate", images[:2]))
    decoder = method.decoder_
    assert decoder is not None
    targets = decoder.targets(load_features("random:tiny", (2, 3), device="cpu")(images[2:]))
    assert torch.equal(decoder(targets)[0], decoder(targets, 0.5)[0])
    noisy = decoder(targets, 0.5, torch.Generator().manual_seed(1))[0]
    generator = torch.Generator().manual_seed(1)
    hidden = functional.gelu(decoder.into(decoder.tokens(targets)))
    hidden = 2 * hidden * (torch.rand(hidden.shape, generator=generator) >= 0.5)
    tokens = decoder.out(hidden)
    tokens = 2 * tokens * (torch.rand(tokens.shape, generator=generator) >= 0.5)
    expected = decoder.heads[0](nn.Sequential(*decoder.blocks)(tokens))
    torch.testing.assert_close(noisy.flatten(2).mT, expected)


def test_map_is_the_mean_cosine_distance_and_the_score_its_highest_hundredth(
    images: Tensor,
) -> None:
    method = small(blur=1.5).fit(Support("plate", images[:2]))
    found = method.predict(images[2:3])
    decoder = method.decoder_
    assert decoder is not None
    targets = decoder.targets(load_features("random:tiny", (2, 3), device="cpu")(images[2:3]))
    expected = turning_map(targets, decoder(targets), (64, 64), 1.5) / 2
    np.testing.assert_allclose(found.anomaly_map[0].numpy(), expected, rtol=1e-3, atol=1e-4)
    highest = np.sort(expected.ravel())[-41:].mean()
    assert float(found.image_score[0]) == pytest.approx(highest, rel=1e-3)


@pytest.mark.parametrize(("share", "n_easy"), [(0.0, 0), (0.5, 4), (0.9, 7), (1.0, 7)])
def test_the_best_rebuilt_positions_teach_a_tenth(share: float, n_easy: int) -> None:
    distance = torch.tensor([0.3, 0.1, 0.8, 0.2, 0.5, 0.7, 0.4, 0.6]).view(2, 2, 2)
    weights = loosened(distance, share).flatten()
    easy = sorted(range(8), key=lambda one: float(distance.flatten()[one]))[:n_easy]
    expected = [0.1 if one in easy else 1.0 for one in range(8)]
    assert weights.tolist() == pytest.approx(expected)


def test_the_easy_share_rises_and_stays() -> None:
    shares = list(small(steps=20, ramp=0.2)._easy_shares())
    assert shares[:6] == pytest.approx([0.0, 0.225, 0.45, 0.675, 0.9, 0.9])
    assert len(shares) == 20


def test_the_loss_is_the_mean_cosine_distance_of_whole_maps(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught = catch_trainings(monkeypatch, dinomaly)
    small(dropout=0.0).fit(Support("plate", images[:2]))
    network, loss, _ = caught[0]
    targets = network.targets(load_features("random:tiny", (2, 3), device="cpu")(images[:2]))
    found = loss(torch.arange(2), torch.Generator())
    rebuilt = network(targets)
    expected = np.mean(whole_turns(targets, rebuilt))
    assert float(found.detach()) == pytest.approx(expected, rel=1e-3)
