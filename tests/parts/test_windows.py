"""Windows against loops that take one window, one patch and one score at a time."""

import math
from copy import deepcopy
from inspect import signature
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from open_clip.transformer import CustomResidualAttentionBlock
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError
from fewshot_ad.parts import windows
from fewshot_ad.parts.clip_networks import TINY
from fewshot_ad.parts.windows import (
    WindowTower,
    anomaly_probability,
    harmonic_mean,
    pool_windows,
    reference_map,
    window_index,
    window_map,
)


def drawn_tower(quick_gelu: bool = False, **vision: Any) -> Any:
    """The image tower of a small random CLIP with 4x4 patches, every parameter drawn."""
    config = deepcopy(TINY)
    config["vision_cfg"] |= vision
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        visual = CLIP(**config, quick_gelu=quick_gelu).visual
        for values in visual.parameters():
            values.data += 0.1 * torch.randn_like(values)
    return visual.eval().requires_grad_(requires_grad=False)


def with_sequences_second(visual: Any) -> Any:
    """The same tower as open_clip builds it without ``batch_first``."""
    turned = deepcopy(visual)
    turned.transformer.batch_first = False
    for block in turned.transformer.resblocks:
        block.attn.batch_first = False
    return turned


def without_the_option(visual: Any) -> Any:
    """The same tower as open_clip 4 will build it: nobody says ``batch_first``."""
    turned = deepcopy(visual)
    del turned.transformer.batch_first
    return turned


@pytest.fixture
def visual() -> Any:
    return drawn_tower()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(5))


def corners(grid: int, side: int) -> list[tuple[int, int]]:
    return [(y, x) for y in range(grid - side + 1) for x in range(grid - side + 1)]


def token(visual: Any, image: Tensor, y: int, x: int) -> Tensor:
    """One patch, cut out of the image, with its place in the whole."""
    side = visual.patch_size[0]
    pixels = image[:, y * side : (y + 1) * side, x * side : (x + 1) * side]
    embedded = (visual.conv1.weight * pixels).sum(dim=(1, 2, 3))
    return embedded + visual.positional_embedding[1 + y * visual.grid_size[1] + x]


def embedded_alone(visual: Any, image: Tensor, places: list[tuple[int, int]], pool: str) -> Tensor:
    """What the tower's own transformer makes of the class token and some patches."""
    first = visual.class_embedding + visual.positional_embedding[0]
    tokens = torch.stack([first, *(token(visual, image, y, x) for y, x in places)])
    found = visual.transformer(visual.ln_pre(tokens)[None])[0]
    if not visual.final_ln_after_pool:
        found = visual.ln_post(found)
    pooled = found[0] if pool == "class_token" else found[1:].mean(dim=0)
    return (visual.ln_post(pooled) if visual.final_ln_after_pool else pooled) @ visual.proj


VARIANTS = {
    "plain": {},
    "quick_gelu": {"quick_gelu": True},
    "layer_scale": {"ls_init_value": 0.5},
    "norm_after_pool": {"final_ln_after_pool": True},
    "no_norm_before": {"no_ln_pre": True},
    "one_block": {"layers": 1},
    "patch_14": {"patch_size": 14, "image_size": 56},
    "patch_32": {"patch_size": 32, "image_size": 128},
}


@pytest.mark.parametrize("pool", ["class_token", "patches"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_window_is_what_the_tower_makes_of_it_alone(name: str, pool: Any) -> None:
    visual = drawn_tower(**VARIANTS[name])
    size = visual.image_size[0]
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(5))
    _, *found, _ = WindowTower(visual, (1, 2, 3, 4), pool=pool)(images)
    for side, maps in zip((1, 2, 3, 4), found, strict=True):
        for image, embeddings in zip(images, maps, strict=True):
            for y, x in corners(4, side):
                places = [(y + i, x + j) for i in range(side) for j in range(side)]
                expected = embedded_alone(visual, image, places, pool)
                torch.testing.assert_close(embeddings[:, y, x], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("pool_type", ["tok", "avg"])
def test_the_whole_image_is_what_the_model_says_of_it(pool_type: str, images: Tensor) -> None:
    visual = drawn_tower(pool_type=pool_type)
    image, *_ = WindowTower(visual)(images)
    torch.testing.assert_close(image[:, :, 0, 0], visual(images), rtol=1e-5, atol=1e-5)


def test_blocks_of_another_kind_are_run_as_they_are(images: Tensor) -> None:
    if "qk_norm" not in signature(CustomResidualAttentionBlock).parameters:
        pytest.skip("such blocks fail on their own in this version of open_clip")
    visual = drawn_tower()
    blocks = [
        CustomResidualAttentionBlock(64, 2, scale_heads=True, scale_attn=True).eval()
        for _ in range(2)
    ]
    visual.transformer.resblocks = torch.nn.ModuleList(blocks)
    _, small, _, _ = WindowTower(visual)(images[:1])
    places = [(1, 2), (1, 3), (2, 2), (2, 3)]
    expected = embedded_alone(visual, images[0], places, "class_token")
    torch.testing.assert_close(small[0, :, 1, 2], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("turn", [with_sequences_second, without_the_option])
@pytest.mark.parametrize("pool", ["class_token", "patches"])
def test_the_layout_of_the_blocks_changes_nothing(
    turn: Any, pool: Any, visual: Any, images: Tensor
) -> None:
    expected = WindowTower(visual, pool=pool)(images)
    found = WindowTower(turn(visual), pool=pool)(images)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("turn", [lambda visual: visual, with_sequences_second, without_the_option])
def test_permuting_windows_permutes_outputs_and_nothing_else(
    turn: Any, visual: Any, images: Tensor
) -> None:
    tower = WindowTower(turn(visual))
    tokens, (layout, _) = tower.embed(images), tower.layouts
    order = torch.randperm(len(layout), generator=torch.Generator().manual_seed(1))
    straight, turned = tower.windows(tokens, layout), tower.windows(tokens, layout[order])
    torch.testing.assert_close(turned, straight[:, order], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(turned, straight, atol=1e-3)


@pytest.mark.parametrize("turn", [lambda visual: visual, with_sequences_second])
def test_a_window_sees_no_other(turn: Any, visual: Any, images: Tensor) -> None:
    tower = WindowTower(turn(visual))
    changed = images.clone()
    changed[1, :, 48:, 48:] += 3  # the last patch of the second image
    before, after = tower(images), tower(changed)
    for side, one, other in zip((2, 3), before[1:3], after[1:3], strict=True):
        differs = (one - other).abs().amax(dim=1) > 1e-4
        expected = torch.zeros_like(differs)
        expected[1, 4 - side, 4 - side] = True
        assert torch.equal(differs, expected)


def test_blocks_bounded_in_memory_change_nothing(
    visual: Any, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = WindowTower(visual)(images)
    monkeypatch.setattr(windows, "TOKENS_AT_ONCE", 17)
    seen: list[int] = []
    tower = WindowTower(visual)
    monkeypatch.setattr(tower, "sequences", lambda one: seen.append(one.shape[0]) or whole(one))
    whole = WindowTower(visual).sequences
    for one, other in zip(tower(images), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert max(seen) == 3  # 17 // 5
    assert sum(seen) == 3 * (9 + 4)


def test_a_map_of_windows_is_not_flat(visual: Any, images: Tensor) -> None:
    _, small, _, _ = WindowTower(visual)(images)
    prototypes = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    assert (window_map([small], (2,), prototypes).std(dim=(1, 2)) > 1e-3).all()


@pytest.mark.parametrize(("block", "normed"), [(-1, False), (0, False), (1, True)])
def test_patches_are_the_output_of_a_block(
    block: int, normed: bool, visual: Any, images: Tensor
) -> None:
    *_, patches = WindowTower(visual, patch_block=block, normed_patches=normed)(images)
    tokens = visual.ln_pre(
        torch.stack(
            [
                torch.stack(
                    [
                        visual.class_embedding + visual.positional_embedding[0],
                        *(token(visual, image, y, x) for y in range(4) for x in range(4)),
                    ]
                )
                for image in images
            ]
        )
    )
    for each in visual.transformer.resblocks[: range(2)[block] + 1]:
        tokens = each(tokens)
    tokens = visual.ln_post(tokens) if normed else tokens
    expected = tokens[:, 1:].reshape(3, 4, 4, 64).permute(0, 3, 1, 2)
    torch.testing.assert_close(patches, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("block", [-3, 2])
def test_there_is_no_such_block(block: int, visual: Any) -> None:
    with pytest.raises(FewShotError, match=f"patch_block is {block}: expected -2 to 1"):
        WindowTower(visual, patch_block=block)


def test_the_published_counts_of_windows() -> None:
    assert window_index((15, 15), 2).shape == (196, 4)
    assert window_index((15, 15), 3).shape == (169, 9)
    assert window_index((2, 3), 2).tolist() == [[0, 1, 3, 4], [1, 2, 4, 5]]


def test_an_image_smaller_than_a_window_is_refused(visual: Any) -> None:
    with pytest.raises(FewShotError, match="4x4 patches: too small for windows of 5x5"):
        WindowTower(visual, (2, 5))


def test_windows_pool_to_patches_by_the_harmonic_mean() -> None:
    scores = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(3)) + 0.01
    found = pool_windows(scores, 2)
    assert found.shape == (2, 5, 6)
    for image, y, x in [(n, y, x) for n in range(2) for y in range(5) for x in range(6)]:
        holding = [
            float(scores[image, i, j])
            for i in range(4)
            for j in range(5)
            if i <= y < i + 2 and j <= x < j + 2
        ]
        expected = len(holding) / sum(1 / score for score in holding)
        assert float(found[image, y, x]) == pytest.approx(expected, rel=1e-5)


def test_a_score_of_zero_stays_finite_and_least() -> None:
    scores = torch.tensor([[[0.0, 0.5], [0.5, 0.5]]])
    found = pool_windows(scores, 2)
    assert found.isfinite().all()
    assert (found[0, :2, :2] < 1e-5).all()
    assert float(found[0, 2, 2]) == pytest.approx(0.5)


def test_scales_meet_in_the_harmonic_mean() -> None:
    maps = [torch.full((1, 2, 2), value) for value in (0.2, 0.5, 1.0)]
    torch.testing.assert_close(harmonic_mean(maps), torch.full((1, 2, 2), 3 / (5 + 2 + 1)))


def test_the_probability_is_the_softmax_of_cosines() -> None:
    generator = torch.Generator().manual_seed(4)
    embeddings = torch.randn(1, 8, 2, 2, generator=generator)
    prototypes = torch.randn(2, 8, generator=generator)
    found = anomaly_probability(embeddings, prototypes, 0.3)
    for y, x in corners(2, 1):
        one = embeddings[0, :, y, x]
        cosines = [functional.cosine_similarity(one, each, dim=0) for each in prototypes]
        normal, anomalous = (math.exp(float(cosine) / 0.3) for cosine in cosines)
        assert float(found[0, y, x]) == pytest.approx(anomalous / (normal + anomalous), rel=1e-5)


def test_prototypes_in_known_places_give_known_maps() -> None:
    """Axis 0 is normal, axis 1 anomalous: one damaged 2x2 window among nine, known by hand."""
    prototypes = torch.eye(2, 6)
    embeddings = torch.zeros(1, 6, 3, 3)
    embeddings[:, 0] = 7.0  # lengths do not count
    embeddings[0, :, 1, 1] = torch.tensor([0, 0.5, 0, 0, 0, 0])
    low, high = 1 / (1 + math.exp(10)), 1 / (1 + math.exp(-10))
    found = window_map([embeddings], (2,), prototypes, temperature=0.1)
    expected = torch.full((1, 4, 4), low)
    expected[0, 1:3, 1:3] = 4 / (3 / low + 1 / high)  # three of the four windows there are normal
    torch.testing.assert_close(found, expected)
    with_image = window_map([embeddings], (2,), prototypes, 0.1, torch.tensor([0.25]))
    torch.testing.assert_close(with_image, 2 / (1 / expected + 4))
    neither = window_map([torch.eye(6)[None, :, 5, None, None]], (1,), prototypes)
    torch.testing.assert_close(neither, torch.full((1, 1, 1), 0.5))


def test_references_are_searched_without_regard_to_place() -> None:
    generator = torch.Generator().manual_seed(6)
    queries = [torch.randn(2, 5, 3, 3, generator=generator) for _ in range(2)]
    banks = [torch.randn(4, 5, 3, 3, generator=generator) for _ in range(2)]
    found = reference_map([queries[0][:, :, :2, :2], queries[1]], banks, (2, 1))
    distances = []
    for query, bank in ((queries[0][:, :, :2, :2], banks[0]), (queries[1], banks[1])):
        rows = bank.permute(0, 2, 3, 1).reshape(-1, 5)
        distance = torch.zeros(2, *query.shape[2:])
        for n in range(2):
            for y, x in corners(query.shape[2], 1):
                cosines = functional.cosine_similarity(query[n, :, y, x][None], rows)
                distance[n, y, x] = (1 - cosines.max()) / 2
        distances.append(distance)
    expected = (pool_windows(distances[0], 2) + distances[1]) / 2
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_the_support_shows_is_wholly_normal() -> None:
    bank = torch.randn(1, 5, 3, 3, generator=torch.Generator().manual_seed(6))
    assert float(reference_map([3 * bank], [bank], (1,)).max()) < 1e-5
    only = bank[:, :, :1, :1]
    assert float(reference_map([-only], [only], (1,))) == pytest.approx(1)
