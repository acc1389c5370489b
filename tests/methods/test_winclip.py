"""WinCLIP against loops over its own towers; closed forms with prototypes in known places."""

import json
import math
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, NotFittedError, Preprocess, Support
from fewshot_ad.cli import load_command
from fewshot_ad.cli.settings import configured_method
from fewshot_ad.methods.winclip import WinClip
from fewshot_ad.parts.clip import MEAN, STD, load_clip
from fewshot_ad.parts.published_weights import PUBLISHED
from fewshot_ad.parts.windows import WindowTower
from fewshot_ad.prompts import load_prompts

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
NOTHING = torch.zeros(0, 3, 64, 64)


def small(**changes: Any) -> WinClip:
    settings: dict[str, Any] = {
        "backbone": "random:tiny",
        "device": "cpu",
        "preprocess": Preprocess(size=64),
    }
    return WinClip(**(settings | changes))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(8))


def embeddings(images: Tensor, **recipe: Any) -> list[Tensor]:
    """Unit vectors [image, row, column, channel] of whole image, windows and patches."""
    tower = WindowTower(load_clip("random:tiny", 64).network.visual, **recipe)
    return [functional.normalize(each, dim=1).permute(0, 2, 3, 1) for each in tower(images)]


def prototypes_by_hand(class_name: str) -> Tensor:
    clip = load_clip("random:tiny", 64)
    means = []
    for sentences in load_prompts("winclip").sentences(class_name):
        each = functional.normalize(clip.embed_sentences(sentences), dim=1)
        means.append(functional.normalize(each.mean(dim=0), dim=0))
    return torch.stack(means)


def probability(vector: Tensor, prototypes: Tensor, temperature: float) -> float:
    normal, anomalous = (math.exp(float(vector @ each) / temperature) for each in prototypes)
    return anomalous / (normal + anomalous)


def pooled(scores: dict[tuple[int, int], float], side: int) -> list[list[float]]:
    """The harmonic mean per patch over the windows that hold it, by their corners."""

    def of(y: int, x: int) -> float:
        holding = [s for (i, j), s in scores.items() if i <= y < i + side and j <= x < j + side]
        return len(holding) / sum(1 / max(score, 1e-6) for score in holding)

    return [[of(y, x) for x in range(4)] for y in range(4)]


def places(maps: Tensor) -> list[tuple[int, int]]:
    return [(y, x) for y in range(maps.shape[0]) for x in range(maps.shape[1])]


def by_loops(image: Tensor, support: Tensor, prototypes: Tensor, temperature: float):
    """Score and map of one image as the paper tells it."""
    whole, *scales = (each[0] for each in embeddings(image[None]))
    score = probability(whole[0, 0], prototypes, temperature)
    text = [torch.full((4, 4), score)]
    for vectors, side in zip(scales, (2, 3), strict=False):
        found = {p: probability(vectors[p], prototypes, temperature) for p in places(vectors)}
        text.append(torch.tensor(pooled(found, side)))
    grid_map = 3 / sum(1 / each for each in text)
    if len(support):
        visual = []
        banks = [each.flatten(0, 2) for each in embeddings(support)[1:]]
        for vectors, bank, side in zip(scales, banks, (2, 3, 1), strict=True):
            found = {p: float((1 - bank @ vectors[p]).min()) / 2 for p in places(vectors)}
            visual.append(torch.tensor(pooled(found, side)))
        mean = sum(visual) / 3
        score, grid_map = (score + float(mean.max())) / 2, (grid_map + mean) / 2
    large = functional.interpolate(grid_map[None, None], (64, 64), mode="bilinear")
    return score, large[0, 0]


@pytest.mark.parametrize("shots", [0, 1, 3])
def test_it_is_what_the_loops_say(shots: int, images: Tensor) -> None:
    method = small(temperature=0.05).fit(Support("metal_nut", images[:shots]))
    found = method.predict(images[3:])
    prototypes = prototypes_by_hand("metal_nut")
    for index, image in enumerate(images[3:]):
        score, expected = by_loops(image, images[:shots], prototypes, 0.05)
        assert float(found.image_score[index]) == pytest.approx(score, abs=1e-5)
        torch.testing.assert_close(found.anomaly_map[index], expected, rtol=1e-4, atol=1e-5)


def test_prototypes_in_known_places_find_the_image_they_were_placed_on(images: Tensor) -> None:
    """The anomalous prototype is one image itself, the normal one is orthogonal to it."""
    whole = embeddings(images)[0][:, 0, 0]
    normal = whole[0] - (whole[0] @ whole[2]) * whole[2]
    fitted = small().fit(Support("screw", NOTHING))
    found = fitted.with_prototypes(torch.stack([normal, whole[2]])).predict(images)
    assert float(found.image_score[2]) == pytest.approx(1 / (1 + math.exp(-1 / 0.07)), abs=1e-5)
    assert int(found.image_score.argmax()) == 2
    turned = fitted.with_prototypes(torch.stack([whole[2], normal])).predict(images)
    torch.testing.assert_close(turned.image_score, 1 - found.image_score, rtol=1e-4, atol=1e-5)


def test_a_prototype_on_a_window_lights_its_patches(images: Tensor) -> None:
    window = embeddings(images)[1][1, 0, 2]  # second image, upper right
    other = embeddings(images)[1][1, 2, 0]
    settings = {"windows": (2,), "image_scale": False}
    fitted = small(**settings).fit(Support("screw", NOTHING))
    found = fitted.with_prototypes(torch.stack([other, window])).predict(images[1:2])
    grid = functional.adaptive_avg_pool2d(found.anomaly_map[0][None], 4)[0]
    assert grid.argmax() == 3
    assert grid.argmin() == 12


def test_the_support_is_wholly_normal_to_itself(images: Tensor) -> None:
    method = small().fit(Support("screw", images[:2]))
    prototypes = method.prototypes_
    assert prototypes is not None
    without = small().fit(Support("screw", NOTHING)).predict(images[:2])
    found = method.predict(images[:2])
    torch.testing.assert_close(found.image_score, without.image_score / 2, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.anomaly_map, without.anomaly_map / 2, rtol=1e-4, atol=1e-5)


def test_other_prompts_embed_no_image_again(images: Tensor) -> None:
    method = small(backbone="random:tiny").fit(Support("screw", images[:1]))
    features = load_clip("random:tiny", 64).features()
    method.predict(images)
    missed = features.stats.misses
    prompts = load_prompts("winclip").without(("damaged {}",))
    other = method.embed_prompts(prompts, "screw")
    studied = method.with_prototypes(other).predict(images)
    assert features.stats.misses == missed
    assert not torch.equal(studied.anomaly_map, method.predict(images).anomaly_map)
    again = method.with_prototypes(method.embed_prompts(load_prompts("winclip"), "screw"))
    assert torch.equal(again.predict(images).anomaly_map, method.predict(images).anomaly_map)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.01},
        {"prompt_norm": "mean"},
        {"class_name": "metal bolt"},
        {"windows": (2,)},
        {"image_scale": False},
        {"window_pool": "patches"},
        {"patch_block": 0},
        {"normed_patches": True},
        {"tile": 48},
    ],
)
def test_every_parameter_counts(change: dict[str, Any], images: Tensor) -> None:
    support = Support("screw", images[:1])
    usual = small().fit(support).predict(images)
    found = small(**change).fit(support).predict(images)
    assert not torch.allclose(found.anomaly_map, usual.anomaly_map, atol=1e-6)


def test_tiles_are_judged_by_the_tiles_at_their_place(images: Tensor) -> None:
    wide = torch.cat([images[:3], images[2:].flip(0)], dim=3)  # [3 3 64 128]
    method = small(tile=64, tile_overlap=0.0).fit(Support("screw", wide[:1]))
    found = method.predict(wide[1:])
    halves = [
        small().fit(Support("screw", half[:1])).predict(half[1:]) for half in wide.split(64, dim=3)
    ]
    expected = torch.cat([half.anomaly_map for half in halves], dim=2)
    torch.testing.assert_close(found.anomaly_map, expected)
    scores = torch.stack([half.image_score for half in halves]).mean(dim=0)
    torch.testing.assert_close(found.image_score, scores)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"temperature": 0.0}, "temperature is 0.0: expected 0.0001 or more"),
        ({"windows": ()}, "windows are (): expected sides in patches"),
        ({"windows": (2, 0)}, "windows are (2, 0): expected sides"),
        ({"tile": 0}, "tile is 0: expected 1 or more"),
        ({"tile_overlap": 1.0}, "tile_overlap is 1.0: expected 0 to 0.9"),
    ],
)
def test_parameters_are_checked_when_the_method_is_made(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(FewShotError) as error:
        small(**changes)
    assert line in str(error.value)


@pytest.mark.parametrize(
    ("changes", "size", "line"),
    [
        ({}, (64, 96), "images are 64x96: expected squares, or a tile size, as tile=240"),
        ({"tile": 64}, (48, 96), "images are 48x96, smaller than tiles of 64"),
        ({"tile": 64}, (64, 160), "images make 3 tiles, the support made 1"),
        ({}, (72, 72), "random:tiny cuts images in patches of 16 px, and 72 px is no multiple"),
        ({}, (32, 32), "the image has 2x2 patches: too small for windows of 3x3"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    changes: dict[str, Any], size: tuple[int, int], line: str, images: Tensor
) -> None:
    method = small(**changes).fit(Support("screw", images[:1]))
    with pytest.raises(FewShotError) as error:
        method.predict(torch.zeros(1, 3, *size))
    assert line in str(error.value)


def test_nothing_is_read_before_fit_and_a_variant_has_learned_nothing(images: Tensor) -> None:
    method = WinClip()
    assert (method.preprocess.size, method.preprocess.mean) == (240, MEAN)
    assert (method.preprocess.std, method.min_shots) == (STD, 0)
    fitted = small().fit(Support("screw", images[:1]))
    with pytest.raises(NotFittedError):
        fitted.variant().predict(images)
    assert not {"prototypes_", "references_"} & fitted.params().keys()
    json.dumps(fitted.params())


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"prompts": "nowhere"}, "'nowhere'"),
        ({"class_name": "very " * 70 + "old"}, "tokens, random:tiny reads 77: shorten it"),
        ({"class_name": "a {}"}, "class name"),
        ({"patch_block": 2}, "patch_block is 2: expected -2 to 1"),
    ],
)
def test_a_failed_fit_leaves_nothing_behind(
    changes: dict[str, Any], line: str, images: Tensor
) -> None:
    method = small(**changes)
    with pytest.raises(FewShotError) as error:
        method.fit(Support("screw", images[:1]))
    assert line in str(error.value)
    with pytest.raises(NotFittedError):
        method.predict(images)


def test_it_runs_on_the_command_line_without_weights(cli: Any, tmp_path: Path) -> None:
    size = ["--set", "preprocess.size=64", "--backbone", "random:tiny", "--seeds", "1"]
    task = ["--target-class", "screw", "--query-limit", "2", "--out", tmp_path, "--no-overlays"]
    result = cli("eval", "--method", "winclip", "--shots", "0,1", *size, *task, "--json")
    assert result.exit_code == 0
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["shots"] for row in rows] == [0, 1]


def test_the_published_targets_stand_beside_commands_that_parse() -> None:
    study = yaml.safe_load((EXPERIMENTS / "winclip_mvtec.yaml").read_text())
    assert study["reproduced"] is False
    assert study["rows"][0]["target"] == [90.4, 82.3, 61.9]
    for row in study["rows"]:
        _, name, *arguments = shlex.split(row["command"])
        options = load_command(name).make_context("eval", arguments).params
        method = configured_method("winclip", options["settings"] or (), "cpu", None, None)
        assert isinstance(method, WinClip)
        load_prompts(options["prompts"] or method.prompts)
        backbone = options["backbone"] or method.backbone
        assert backbone in {entry.name for entry in PUBLISHED}
        shots = row["shots"] if isinstance(row["shots"], list) else [row["shots"]]
        assert options["shots"] == ",".join(map(str, shots))


def test_the_commands_of_the_page_parse() -> None:
    page = (EXPERIMENTS.parent / "docs" / "winclip.md").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in page.splitlines() if line.startswith("    fewshot-ad ")]
    assert len(lines) == 3
    for line in lines:
        _, name, *arguments = shlex.split(line)
        command: Any = load_command(name)
        while getattr(command, "commands", None):
            command = command.commands[arguments.pop(0)]
        assert command.make_context(name, arguments).params


def test_absent_weights_end_in_one_line(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewshot_ad.parts.weight_catalog.in_caches", lambda entry: None)
    task = ["--target-class", "screw", "--shots", "0", "--seeds", "1", "--out", tmp_path]
    result = cli("eval", "--method", "winclip", *task, "--quiet")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ViT-B-16-plus-240.laion400m_e32 is not on this machine")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "results.jsonl").exists()
