from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fewshot_ad.parts import training
from fewshot_ad.parts.training import Adam, run_steps, step_generator


@pytest.fixture(autouse=True)
def _save_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", -1.0)


class Walk:
    """A linear layer that learns from random batches; told to, it dies before a step."""

    def __init__(self, die_at: int | None = None) -> None:
        self.layer = nn.Linear(3, 1)
        nn.init.ones_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.adam = Adam(self.layer, 0.1, 0.01)
        self.die_at = die_at
        self.steps: list[int] = []

    def advance(self, step: int) -> None:
        if step == self.die_at:
            raise KeyboardInterrupt
        self.steps.append(step)
        batch = torch.randn(4, 3, generator=step_generator(7, step))
        self.adam.step(lambda: self.layer(batch).square().mean())

    def state(self) -> dict[str, Any]:
        return {"layer": self.layer.state_dict(), "adam": self.adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        self.layer.load_state_dict(state["layer"])
        self.adam.load_state_dict(state["adam"])

    def run(self, resume: Path | None = None, identity: str = "walk") -> list[float]:
        run_steps(
            9,
            self.advance,
            label="walk",
            state=self.state,
            restore=self.restore,
            resume=resume,
            identity=identity,
        )
        return self.layer.weight.flatten().tolist()


def killed(path: Path) -> Path:
    with pytest.raises(KeyboardInterrupt):
        Walk(die_at=5).run(path)
    return path


def test_every_step_is_done_once_and_in_order() -> None:
    walk = Walk()
    walk.run()
    assert walk.steps == list(range(9))


def test_a_broken_run_goes_on_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    path, again = killed(tmp_path / "partial"), Walk()
    assert again.run(path) == Walk().run()
    assert again.steps == [5, 6, 7, 8]
    assert [file.name for file in tmp_path.iterdir()] == ["partial"]


def test_nothing_is_kept_before_it_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "SAVE_EVERY_SECONDS", 1000.0)
    killed(tmp_path / "partial")
    assert not list(tmp_path.iterdir())


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lose_the_optimiser(path: Path) -> None:
    """What is restored before the loss shows must be undone."""
    saved = torch.load(path, weights_only=True)
    del saved["state"]["adam"]
    torch.save(saved, path)


def lose_the_step(path: Path) -> None:
    saved = torch.load(path, weights_only=True)
    del saved["step"]
    torch.save(saved, path)


def fill_with_a_picture(path: Path) -> None:
    torch.save(torch.zeros(3), path)


@pytest.mark.parametrize(
    "damage", [tear, empty, lose_the_optimiser, lose_the_step, fill_with_a_picture]
)
def test_a_torn_file_counts_as_none(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path, again = killed(tmp_path / "partial"), Walk()
    damage(path)
    assert again.run(path) == Walk().run()
    assert again.steps == list(range(9))


def test_the_file_of_another_run_counts_as_none(tmp_path: Path) -> None:
    path, other = killed(tmp_path / "partial"), Walk()
    other.run(path, identity="another walk")
    assert other.steps == list(range(9))


def test_steps_have_randomness_of_their_own() -> None:
    drawn = {
        float(torch.rand((), generator=step_generator(seed, step)))
        for seed in (0, 1)
        for step in (0, 1, 2)
    }
    assert len(drawn) == 6


def test_adam_is_that_of_torch_and_forgets_old_gradients() -> None:
    ours, theirs = nn.Linear(2, 1), nn.Linear(2, 1)
    theirs.load_state_dict(ours.state_dict())
    adam, expected = Adam(ours, 0.05, 0.1), torch.optim.Adam(theirs.parameters(), 0.05)
    expected.param_groups[0]["weight_decay"] = 0.1
    for step in range(3):
        batch = torch.full((5, 2), float(step + 1))
        adam.step(lambda batch=batch: ours(batch).square().sum())
        theirs.zero_grad()
        theirs(batch).square().sum().backward()
        expected.step()
    assert torch.equal(ours.weight, theirs.weight)


@pytest.mark.parametrize("module", [None, nn.Identity(), nn.Linear(2, 2).requires_grad_(False)])
def test_where_nothing_can_learn_no_loss_is_asked_for(module: nn.Module | None) -> None:
    adam = Adam(module, 0.1, 0.0)
    adam.step(lambda: pytest.fail("the loss was evaluated"))
    adam.load_state_dict(adam.state_dict())
    assert adam.state_dict() == {}
