from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.backbones import Backbone, load_backbone
from fewshot_ad.parts.feature_cache import MISSES_AT_ONCE, FeatureCache, load_features
from fewshot_ad.parts.passing import passing_once

IMAGES = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
BYTES_EACH = 4 * (32 * 8 * 8 + 96 * 4 * 4 + 160 * 2 * 2)


class Counting(nn.Module):
    """Passes images on, and counts them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.count = network, 0

    def forward(self, images: Tensor) -> list[Tensor]:
        self.count += len(images)
        return self.network(images)


@pytest.fixture
def backbone() -> Backbone:
    loaded = load_backbone("random:tiny")
    object.__setattr__(loaded, "network", Counting(loaded.network))
    return loaded


def summed(levels: list[Tensor]) -> Tensor:
    return levels[0].sum(dim=1, keepdim=True)


def equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_a_hit_returns_the_bits_of_the_backbone_and_runs_nothing(backbone: Backbone):
    cache = FeatureCache(backbone)
    wanted = backbone(IMAGES)
    backbone.network.count = 0
    assert equal(cache(IMAGES), wanted)
    assert backbone.network.count == 6
    assert equal(cache(IMAGES.flip(0)), [level.flip(0) for level in wanted])
    assert equal(cache(IMAGES[2:4]), [level[2:4] for level in wanted])
    assert backbone.network.count == 6
    assert (cache.stats.hits, cache.stats.misses, cache.stats.bytes) == (8, 6, 6 * BYTES_EACH)


def test_only_what_is_missing_is_computed_and_equal_images_once(backbone: Backbone):
    cache = FeatureCache(backbone)
    cache(IMAGES[:2])
    twice = torch.cat([IMAGES[:4], IMAGES[3:4], IMAGES[:1]])
    assert equal(cache(twice), backbone(twice))
    assert cache.stats.misses == 4


def test_more_misses_than_are_run_at_once(backbone: Backbone):
    many = torch.randn(2 * MISSES_AT_ONCE + 3, 3, 16, 16)
    assert equal(FeatureCache(backbone)(many), backbone(many))


def test_the_least_recently_asked_for_is_forgotten_first(backbone: Backbone):
    cache = FeatureCache(backbone, max_bytes=2 * BYTES_EACH)
    for row in (0, 1, 0, 2):  # 1 makes room for 2
        cache(IMAGES[row : row + 1])
    backbone.network.count = 0
    cache(IMAGES[[0, 2]])
    assert backbone.network.count == 0
    cache(IMAGES[1:2])
    assert backbone.network.count == 1
    assert cache.stats.bytes == 2 * BYTES_EACH


def test_a_limit_too_small_for_one_image_still_answers(backbone: Backbone):
    cache = FeatureCache(backbone, max_bytes=10)
    assert equal(cache(IMAGES), backbone(IMAGES))
    assert cache.stats.bytes == 0


def test_images_that_pass_once_have_the_same_bits_and_are_forgotten(backbone: Backbone):
    cache = FeatureCache(backbone)
    asked = FeatureCache(backbone).made(IMAGES[:1], "sum", summed)
    with passing_once():
        assert equal(cache(IMAGES), backbone(IMAGES))
        assert torch.equal(cache.made(IMAGES[:1], "sum", summed), asked)
    assert cache.stats == FeatureCache(backbone).stats
    cache(IMAGES)
    assert cache.stats.misses == 6


def test_what_the_caller_does_to_features_stays_with_the_caller(backbone: Backbone):
    cache = FeatureCache(backbone)
    for level in cache(IMAGES):
        level.zero_()
    assert equal(cache(IMAGES), backbone(IMAGES))


def test_images_of_one_content_and_two_shapes_are_two(backbone: Backbone):
    cache = FeatureCache(backbone)
    wide, tall = torch.zeros(1, 3, 16, 32), torch.zeros(1, 3, 32, 16)
    assert cache(wide)[0].shape[2:] == (4, 8)
    assert cache(tall)[0].shape[2:] == (8, 4)


def test_no_images_and_bad_images(backbone: Backbone):
    cache = FeatureCache(backbone)
    assert [len(level) for level in cache(IMAGES[:0])] == [0, 0, 0]
    for _ in range(2):  # nothing of the failure is remembered
        with pytest.raises(FewShotError, match="NaN"):
            cache(torch.full((1, 3, 16, 16), torch.nan))


def test_threads_get_the_same_answers(backbone: Backbone):
    cache = FeatureCache(backbone, max_bytes=3 * BYTES_EACH)
    wanted = backbone(IMAGES)
    rows = [0, 1, 2, 3, 4, 5] * 5
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda row: cache(IMAGES[row : row + 1]), rows)
        for row, found in zip(rows, answers, strict=True):
            assert equal(found, [level[row : row + 1] for level in wanted])


def test_a_process_has_one_cache_for_a_backbone_and_its_levels():
    one = load_features("random:tiny", (2, 3))
    assert load_features("random:tiny", (2, 3)) is one
    assert load_features("random:tiny", (2, 3), device="auto").backbone.levels == (2, 3)
    assert load_features("random:tiny", (1, 2)) is not one
    assert deepcopy(one) is one


def test_what_is_made_of_features_is_made_once_for_each_name(backbone: Backbone):
    cache = FeatureCache(backbone)
    made = []

    def deepest(levels: list[Tensor]) -> Tensor:
        made.append(levels)
        return levels[-1] * 2

    first = cache.made(IMAGES[:1], "deepest", deepest)
    assert torch.equal(first, backbone(IMAGES[:1])[-1] * 2)
    assert cache.made(IMAGES[:1].clone(), "deepest", deepest) is first
    assert len(made) == 1
    assert torch.equal(cache.made(IMAGES[1:2], "deepest", deepest), backbone(IMAGES[1:2])[-1] * 2)
    assert torch.equal(
        cache.made(IMAGES[:1], "first", lambda levels: levels[0]), cache(IMAGES)[0][:1]
    )
    assert torch.equal(cache.made(IMAGES[:1], "deepest", deepest), first)
