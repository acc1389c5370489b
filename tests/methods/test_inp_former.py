import numpy as np
import pytest
import torch
from by_hand import turning_map, whole_turns
from listening import catch_trainings
from noisy import noisy_ramps
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.methods import inp_former
from fewshot_ad.methods.inp_former import INPFormer, hardened, incoherence
from fewshot_ad.parts.feature_cache import load_features


def small(**changes) -> INPFormer:
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
    return INPFormer(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return noisy_ramps(4)


def test_prototypes_are_what_tokens_find_in_the_image_and_make_of_it(images: Tensor) -> None:
    network = fitted_network(images[:2])
    tokens = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1))
    inner = network.extract
    weights, biases = inner.in_proj_weight.chunk(3), inner.in_proj_bias.chunk(3)
    query = functional.linear(network.queries.expand(2, -1, -1), weights[0], biases[0])
    key, value = (functional.linear(tokens, weights[n], biases[n]) for n in (1, 2))
    heads = []
    for part in (slice(0, 8), slice(8, 16)):
        likeness = query[..., part] @ key[..., part].mT / 8**0.5
        heads.append(likeness.softmax(dim=2) @ value[..., part])
    seen = network.queries + inner.out_proj(torch.cat(heads, dim=2))
    expected = seen + network.refine(network.before_refining(seen))
    torch.testing.assert_close(network._prototypes(tokens), expected)


def test_a_block_mixes_prototypes_by_positive_likeness_without_a_shortcut(images: Tensor) -> None:
    block = fitted_network(images[:2]).blocks[0]
    generator = torch.Generator().manual_seed(1)
    tokens, prototypes = (torch.randn(1, n, 16, generator=generator) for n in (5, 3))
    query = block.query(block.before_attention(tokens))[0]
    key, value = block.memory(prototypes)[0].chunk(2, dim=1)
    mixed = torch.zeros(5, 16)
    for one in range(5):
        for part in (slice(0, 8), slice(8, 16)):
            for m in range(3):
                likeness = max(0.0, float(query[one, part] @ key[m, part]) / 8**0.5)
                mixed[one, part] += likeness * value[m, part]
    found = block.output(mixed)
    expected = found + block.feeding(block.before_feeding(found))
    torch.testing.assert_close(block(tokens, prototypes)[0], expected, rtol=1e-4, atol=1e-5)


def test_the_join_does_not_learn(images: Tensor) -> None:
    joins = [fitted_network(images[:2], steps).join.weight for steps in (1, 3)]
    assert torch.equal(*joins)


def fitted_network(images: Tensor, steps: int = 1):
    network = small(steps=steps).fit(Support("plate", images)).network_
    assert network is not None
    return network


def test_map_is_the_mean_cosine_distance_and_the_score_its_highest_hundredth(
    images: Tensor,
) -> None:
    method = small(blur=1.5).fit(Support("plate", images[:2]))
    found = method.predict(images[2:3])
    network = method.network_
    assert network is not None
    targets = network.targets(load_features("random:tiny", (2, 3), device="cpu")(images[2:3]))
    expected = turning_map(targets, network(targets)[0], (64, 64), 1.5) / 2
    np.testing.assert_allclose(found.anomaly_map[0].numpy(), expected, rtol=1e-3, atol=1e-4)
    highest = np.sort(expected.ravel())[-41:].mean()
    assert float(found.image_score[0]) == pytest.approx(highest, rel=1e-3)


def test_gradients_grow_with_the_distance_over_its_mean() -> None:
    distance = torch.tensor([0.1, 0.2, 0.3, 0.2]).view(1, 2, 2)
    expected = [0.125, 1.0, 1.5**3, 1.0]
    assert hardened(distance, 3.0).flatten().tolist() == pytest.approx(expected)
    assert hardened(torch.zeros(1, 2, 2), 3.0).tolist() == torch.zeros(1, 2, 2).tolist()


def test_coherence_is_the_cosine_to_the_prototype_most_alike() -> None:
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 3.0], [1.0, 1.0]]])
    prototypes = torch.tensor([[[5.0, 0.0], [-1.0, 0.0]]])
    assert float(incoherence(tokens, prototypes)) == pytest.approx((0 + 1 + 1 - 0.5**0.5) / 3)


def test_the_loss_is_the_mean_cosine_distance_of_whole_maps_and_coherence(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught = catch_trainings(monkeypatch, inp_former)
    small(coherence_weight=0.5).fit(Support("plate", images[:2]))
    network, loss, _ = caught[0]
    targets = network.targets(load_features("random:tiny", (2, 3), device="cpu")(images[:2]))
    found = loss(torch.arange(2), torch.Generator())
    rebuilt, coherence = network(targets)
    expected = np.mean(whole_turns(targets, rebuilt)) + 0.5 * float(coherence)
    assert float(found.detach()) == pytest.approx(expected, rel=1e-3)
