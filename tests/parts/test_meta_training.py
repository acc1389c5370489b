from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts import training
from fewshot_ad.parts.known_residuals import LabelledResiduals
from fewshot_ad.parts.level_models import LevelModel, LevelModels, ResidualScale
from fewshot_ad.parts.meta_training import SHARES, UNJUDGED_SHARE, Course, draw_held_out

NAMES = ("a", "b", "c", "d")


class Scripted(LevelModel):
    """Scores a defect by what is written for the step it was last taught; draws are kept."""

    last: Tensor

    def __init__(self, merits: list[float], die_at: int | None = None) -> None:
        super().__init__()
        self.scale = ResidualScale()
        self.merits, self.die_at = merits, die_at
        self.register_buffer("last", torch.tensor(-1))
        self.register_buffer("sum", torch.tensor(0.0))
        self.seen: list[Tensor] = []
        self.labels: list[list[bool]] = []

    def learn(
        self, residuals: Tensor, cells: Tensor, step: int, generator: torch.Generator
    ) -> None:
        if step == self.die_at:
            raise KeyboardInterrupt
        self.seen.append(residuals[:, 1, 0, 0])  # which class
        self.labels.append(cells.flatten(1).any(dim=1).tolist())
        self.last.fill_(step)
        self.sum += residuals.sum() * torch.rand((), generator=generator)

    def score(self, residuals: Tensor) -> Tensor:
        return residuals[:, 0] * self.merits[int(self.last)]


def labelled(number: int, anomalous: list[bool]) -> LabelledResiduals:
    """Channel 0 is 1 where the defect is, in the upper half; channel 1 tells the class."""
    labels = torch.tensor(anomalous)
    cells = torch.zeros(len(labels), 2, 4, dtype=torch.bool)
    cells[labels, 0] = True
    own = torch.full_like(cells, number, dtype=torch.float32)
    return LabelledResiduals([torch.stack([cells.float(), own], dim=1)], [cells], labels)


def course(model: Scripted, *, anomalous: list[bool] | None = None, **changes) -> Course:
    kinds = [False, True, False, True] if anomalous is None else anomalous
    settings = {"held_out": 0.25, "learned_share": 1.0, "steps": len(model.merits), "seed": 0}
    settings |= {"batch_size": 4, "to_map": lambda levels: levels[0], **changes}
    names = settings.pop("names", NAMES)
    residuals = {name: [labelled(n, kinds)] for n, name in enumerate(names)}
    return Course(models=LevelModels([model], "signed"), residuals=residuals, **settings)


@pytest.mark.parametrize(
    ("merits", "best"),
    [([1, -1, -1, -1, -1], 1), ([-1, -1, 1, 1, -1], 3), ([-1, -1, -1, -1, 1], 5)],
)
def test_the_first_of_the_best_judged_steps_is_kept(merits: list[float], best: int) -> None:
    model = Scripted(merits)
    run = course(model)
    run.run()
    assert run.selected_step == best
    assert int(model.last) == best - 1
    assert len(model.seen) == 5


def test_judges_are_asked_five_times_and_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(Course, "_judge", lambda self, step: asked.append(step))
    for steps in (3, 11, 200):
        asked.clear()
        course(Scripted([1.0] * steps)).run()
        assert asked[-1] == steps
        assert len(asked) == min(5, steps)


def test_judges_never_teach() -> None:
    model = Scripted([1.0] * 30)
    run = course(model)
    run.run()
    (judge,) = run.judges
    taught = {int(number) for batch in model.seen for number in batch}
    assert taught == {0, 1, 2, 3} - {NAMES.index(judge)}


def test_half_of_a_batch_is_anomalous() -> None:
    model = Scripted([1.0] * 3)
    course(model).run()
    assert model.labels == [[True, False, True, False]] * 3


def test_batches_of_one_show_both_kinds_in_turn() -> None:
    model = Scripted([1.0] * 4)
    course(model, batch_size=1).run()
    assert model.labels == [[True], [False], [True], [False]]


@pytest.mark.parametrize("anomalous", [[True, True, False], [False, False]])
def test_one_kind_stands_in_for_the_other_where_it_lacks(anomalous: list[bool]) -> None:
    model = Scripted([1.0] * 3)
    course(model, anomalous=anomalous).run()
    assert all(len(batch) == 4 for batch in model.labels)
    assert any(True in batch for batch in model.labels) == any(anomalous)


def test_without_judges_the_last_step_and_the_middle_share_stay() -> None:
    model = Scripted([1, -1, -1, -1])
    run = course(model, held_out=0.0, learned_share=None)
    run.run()
    assert (run.judges, run.selected_step, int(model.last)) == ((), 4, 3)
    assert float(run.models.share) == pytest.approx(UNJUDGED_SHARE)


def test_judges_choose_the_share(monkeypatch: pytest.MonkeyPatch) -> None:
    def maps(self: Course, one: LabelledResiduals) -> tuple[Tensor, Tensor]:
        """Defects at 0.8; one normal falls from 2 to 0 with the share, another climbs to 1."""
        plain, learned = torch.zeros(4, 2, 4), torch.zeros(4, 2, 4)
        plain[one.cells[0]] = learned[one.cells[0]] = 0.8
        plain[0, 1, 0], learned[0, 1, 1] = 2.0, 1.0
        return plain, learned

    monkeypatch.setattr(Course, "_maps", maps)
    run = course(Scripted([1.0] * 5), learned_share=None, held_out=0.75)
    run.run()
    assert len(run.judges) == 3
    assert {0.5, 0.75, 1.0} < {*SHARES}
    assert float(run.models.share) == pytest.approx(0.75)


def test_two_judges_are_too_few_for_the_share() -> None:
    run = course(Scripted([1.0] * 5), learned_share=None, held_out=0.5)
    run.run()
    assert len(run.judges) == 2
    assert float(run.models.share) == pytest.approx(UNJUDGED_SHARE)


def test_judges_see_the_map_that_users_see() -> None:
    merits = [1.0, -1.0, 1.0, 1.0, 1.0]
    turned = course(Scripted(merits), to_map=lambda levels: -levels[0])
    turned.run()
    assert turned.selected_step == 2


def test_levels_are_prepared_with_all_that_teaches_and_nothing_else() -> None:
    model, seen = Scripted([1.0] * 5), []
    model.prepare = lambda normals, known: seen.append((normals, known))  # type: ignore[method-assign]
    run = course(model)
    run.run()
    ((normals, known),) = seen
    numbers = {float(n) for n, name in enumerate(NAMES) if name not in run.judges}
    assert {float(maps[0, 1, 0, 0]) for maps in normals} == numbers
    assert {float(maps[0, 1, 0, 0]) for maps, _ in known} == numbers
    assert all(len(maps) == len(cells) == 4 for maps, cells in known)


def test_scales_come_from_normals_of_teaching_classes_alone() -> None:
    run = course(Scripted([1.0] * 5))
    numbers = [float(n) for n, name in enumerate(NAMES) if name not in run.judges]
    run.run()
    level = run.models.levels[0]
    mean_square = sum(number**2 for number in numbers) / len(numbers) / 2  # over two channels
    assert float(level.scale.rms) == pytest.approx(mean_square**0.5)
    assert float(run.models.distance[0]) == pytest.approx(sum(numbers) / len(numbers))
    assert float(run.models.centre[0]) == 0.0


def test_a_broken_run_goes_on_and_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", -1.0)
    merits = [-1, 1, -1, -1, -1, -1, -1]
    with pytest.raises(KeyboardInterrupt):
        course(Scripted(merits, die_at=5)).run(tmp_path / "partial")
    resumed, unbroken = course(Scripted(merits)), course(Scripted(merits))
    resumed.run(tmp_path / "partial")
    unbroken.run()
    assert resumed.selected_step == unbroken.selected_step == 2
    assert len(resumed.models.levels[0].seen) == 2
    ours, theirs = resumed.models.state_dict(), unbroken.models.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_some_image_must_be_normal() -> None:
    with pytest.raises(FewShotError, match=r"none of the known classes a, b has a labelled normal"):
        course(Scripted([1.0]), anomalous=[True, True], names=("a", "b"))


@pytest.mark.parametrize(
    ("n_classes", "share", "count"),
    [
        (1, 0.2, 0),
        (2, 0.9, 0),
        (3, 0.0, 0),
        (3, 0.01, 1),
        (8, 0.2, 2),
        (9, 0.01, 3),
        (10, 0.5, 5),
        (3, 1.0, 2),
    ],
)
def test_how_many_classes_are_held_out(n_classes: int, share: float, count: int) -> None:
    names = tuple("abcdefghij"[:n_classes])
    held_out = draw_held_out(names, share, 0)
    assert len(held_out) == count
    assert held_out == tuple(sorted(held_out)) == draw_held_out(names, share, 0)


def test_the_seed_draws_who_is_held_out() -> None:
    assert len({draw_held_out(NAMES, 0.25, seed) for seed in range(20)}) == 4
