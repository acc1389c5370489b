from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from fewshot_ad.api import FewShotError, LabelledBatch, Preprocess
from fewshot_ad.parts import known_residuals as known_residuals_module
from fewshot_ad.parts.embedding import Embedding
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.parts.known_residuals import POOL, LabelledResiduals, known_residuals
from fewshot_ad.parts.residual_stage import ResidualStage

SIZE = Preprocess(size=32)


@dataclass
class Noise:
    """Classes of noise in batches of three; the anomalous images have one marked pixel."""

    names: tuple[str, ...] = ("a/one", "a/two")
    n_normals: int = 6
    n_labelled: int = 7
    digests: frozenset[str] = frozenset()
    batches_read: list[str] = field(default_factory=list)

    def digest_of(self, name: str) -> str:
        return f"{name} {self.n_normals} {self.n_labelled}"

    def images(self, name: str, split: str, count: int) -> Tensor:
        seed = 100 * self.names.index(name) + 10 * (split == "test")
        return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))

    def normals(self, name: str, preprocess: Preprocess) -> Iterator[LabelledBatch]:
        for start in range(0, self.n_normals, 3):
            self.batches_read.append(name)
            images = self.images(name, "train", self.n_normals)[start : start + 3]
            no = torch.zeros(len(images), dtype=torch.bool)
            yield LabelledBatch(images, no[:, None, None].expand(-1, 32, 32), no)

    def labelled(self, name: str, preprocess: Preprocess) -> Iterator[LabelledBatch]:
        labels = torch.arange(self.n_labelled) % 2 == 1
        masks = torch.zeros(self.n_labelled, 32, 32, dtype=torch.bool)
        masks[labels, 13, 30] = True
        images = self.images(name, "test", self.n_labelled)
        for start in range(0, self.n_labelled, 3):
            rows = slice(start, start + 3)
            yield LabelledBatch(images[rows], masks[rows], labels[rows])


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_residuals_module, "_remembered", OrderedDict())


@pytest.fixture
def stage() -> ResidualStage:
    return ResidualStage(load_features("strangers:network", (1, 2)), Embedding())


def residuals_of(
    known: Noise, stage: ResidualStage, *, shots: int = 2, supports: int = 1, seed: int = 0
) -> dict[str, list[LabelledResiduals]]:
    return known_residuals(known, SIZE, stage, shots=shots, supports=supports, seed=seed)


def test_every_labelled_image_is_matched_with_drawn_normals_of_its_class(
    stage: ResidualStage,
) -> None:
    known = Noise()
    found = residuals_of(known, stage)
    for name in known.names:
        (one,) = found[name]
        queries = stage.embed(known.images(name, "test", 7))
        normals = known.images(name, "train", 6)
        pairs = [[i, j] for i in range(6) for j in range(6) if i != j]
        fits = [
            all(map(torch.equal, one.maps, stage.subtract(queries, stage.embed(normals[pair]))))
            for pair in pairs
        ]
        assert any(fits)
        assert all((maps.abs().amax(dim=(1, 2, 3)) > 0).all() for maps in one.maps)


def test_small_masks_survive_on_the_grid(stage: ResidualStage) -> None:
    for one in (of_class[0] for of_class in residuals_of(Noise(), stage).values()):
        assert one.is_anomalous.tolist() == [n % 2 == 1 for n in range(7)]
        for cells, stride in zip(one.cells, (4, 8), strict=True):
            expected = torch.zeros(7, 32 // stride, 32 // stride, dtype=torch.bool)
            expected[one.is_anomalous, 13 // stride, 30 // stride] = True
            assert torch.equal(cells, expected)


def test_supports_are_drawn_anew_and_by_the_seed(stage: ResidualStage) -> None:
    known = Noise(names=("a/one",), n_normals=30)
    several = residuals_of(known, stage, supports=3)["a/one"]
    again = residuals_of(known, stage, supports=3)["a/one"]
    other = residuals_of(known, stage, supports=3, seed=1)["a/one"]
    bits = [tuple(one.maps[0].flatten().tolist()) for one in several]
    assert len(set(bits)) == 3
    assert bits == [tuple(one.maps[0].flatten().tolist()) for one in again]
    assert bits != [tuple(one.maps[0].flatten().tolist()) for one in other]


def test_no_more_normals_are_read_than_can_be_drawn(stage: ResidualStage) -> None:
    known = Noise(names=("a/one",), n_normals=60)
    residuals_of(known, stage, shots=2)
    assert len(known.batches_read) == -(-POOL * 2 // 3)


def test_all_normals_are_the_support_where_there_are_too_few(stage: ResidualStage) -> None:
    known = Noise(names=("a/one",), n_normals=2)
    (one,) = residuals_of(known, stage, shots=9)["a/one"]
    queries = stage.embed(known.images("a/one", "test", 7))
    support = stage.embed(known.images("a/one", "train", 2))
    for maps, expected in zip(one.maps, stage.subtract(queries, support), strict=True):
        assert torch.equal(maps, expected)


def test_a_class_is_the_same_among_others_and_read_once(stage: ResidualStage) -> None:
    both, alone = Noise(), Noise(names=("a/one",))
    (among,) = residuals_of(both, stage)["a/one"]
    (remembered,) = residuals_of(alone, stage)["a/one"]
    assert "a/one" in both.batches_read
    assert alone.batches_read == []
    known_residuals_module._remembered.clear()
    (afresh,) = residuals_of(alone, stage)["a/one"]
    for maps, again, anew in zip(among.maps, remembered.maps, afresh.maps, strict=True):
        assert torch.equal(maps, again)
        assert torch.equal(maps, anew)


@pytest.mark.parametrize("change", [{"shots": 3}, {"supports": 2}, {"seed": 1}])
def test_what_was_remembered_for_other_settings_is_not_taken(
    stage: ResidualStage, change: dict[str, int]
) -> None:
    residuals_of(Noise(names=("a/one",)), stage)
    again = Noise(names=("a/one",))
    residuals_of(again, stage, **change)
    assert again.batches_read


def test_the_oldest_class_is_forgotten_beyond_the_limit(
    stage: ResidualStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_residuals_module, "REMEMBERED_BYTES", 1)
    found = residuals_of(Noise(), stage)
    assert set(found) == {"a/one", "a/two"}
    assert [key[0].split()[0] for key in known_residuals_module._remembered] == ["a/two"]


def test_rows_of_a_batch_belong_together(stage: ResidualStage) -> None:
    (one,) = residuals_of(Noise(names=("a/one",)), stage)["a/one"]
    maps, cells = one.batch(torch.tensor([3, 0]))
    for level in range(2):
        assert torch.equal(maps[level], one.maps[level][[3, 0]])
        assert torch.equal(cells[level], one.cells[level][[3, 0]])


@pytest.mark.parametrize(
    ("known", "line"),
    [
        (Noise(n_normals=0), "the known class a/one has no train normal to draw a support from"),
        (Noise(n_labelled=0), "the known class a/one has no labelled image to learn from"),
    ],
)
def test_an_empty_class_is_named(stage: ResidualStage, known: Noise, line: str) -> None:
    with pytest.raises(FewShotError) as caught:
        residuals_of(known, stage)
    assert str(caught.value) == line
