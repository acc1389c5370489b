"""The one training loop: a budget in steps, a progress bar, and nothing lost to a kill."""

import time
from collections.abc import Callable
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from fewshot_ad.parts.data_parallel import average_gradients, is_first, wait_for_all

SAVE_EVERY_SECONDS = 20.0


def run_steps(
    steps: int,
    advance: Callable[[int], None],
    *,
    label: str,
    state: Callable[[], dict[str, Any]],
    restore: Callable[[dict[str, Any]], None],
    resume: Path | None = None,
    identity: str = "",
) -> None:
    """Call ``advance(step)`` for every step, going on where a killed run left its state.

    What a step does may depend on its number and on the state alone (draw from a generator seeded
    by the number), so that a resumed run ends with the bits of an unbroken one. Of processes that
    share the steps all go on from the file, and the first one writes it.

    Args:
        steps: the whole budget.
        advance: does one step.
        label: what the progress bar says.
        state: everything a step changes, as tensors, numbers and containers of them.
        restore: takes in what ``state`` returned.
        resume: where the state is kept during the run; None keeps nothing.
        identity: of the run; a file that another run left behind counts as none.
    """
    first = 0 if resume is None else _resumed(resume, identity, state, restore)
    wait_for_all()  # now the first may write the file again
    written = resume if is_first() else None
    saved = time.monotonic()
    with progress_bar() as bar:
        task = bar.add_task(label, total=steps, completed=first)
        for step in range(first, steps):
            advance(step)
            bar.advance(task)
            if written is not None and time.monotonic() - saved > SAVE_EVERY_SECONDS:
                _save(written, {"identity": identity, "step": step + 1, "state": state()})
                saved = time.monotonic()


def progress_bar() -> Progress:
    """A bar on stderr that leaves no trace when it is done; the first process of a team has it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not is_first())


def step_generator(seed: int, step: int) -> torch.Generator:
    """Randomness of one step, the same whether or not the run was broken before."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def _resumed(
    path: Path,
    identity: str,
    state: Callable[[], dict[str, Any]],
    restore: Callable[[dict[str, Any]], None],
) -> int:
    """The first step to do; a torn or foreign file counts as none and leaves no trace."""
    if not path.exists():
        return 0
    fresh = deepcopy(state())
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["identity"] != identity:
            return 0
        restore(saved["state"])
        return int(saved["step"])
    except Exception:  # a torn file can raise anything, and costs only the steps it held
        restore(fresh)
        return 0


def _save(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".new")
    torch.save(content, temporary)
    temporary.replace(path)


class Adam:
    """One optimiser for one module; a module without parameters is left in peace."""

    def __init__(self, module: nn.Module | None, learning_rate: float, weight_decay: float) -> None:
        parameters = () if module is None else module.parameters()
        self._parameters = [one for one in parameters if one.requires_grad]
        self._rate, self._decay = learning_rate, weight_decay

    @cached_property
    def _optimiser(self) -> torch.optim.Adam | None:
        """Made at the first step: torch spends seconds on it, and a loaded model takes no step."""
        if not self._parameters:
            return None
        return torch.optim.Adam(self._parameters, lr=self._rate, weight_decay=self._decay)

    def step(self, loss: Callable[[], Float[Tensor, ""]]) -> None:
        """Evaluate a loss and follow its gradient once."""
        if self._optimiser is None:
            return
        self._optimiser.zero_grad()
        loss().backward()
        average_gradients(self._parameters)
        self._optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        """Moments and counts, for a run that may be broken."""
        return {} if self._optimiser is None else self._optimiser.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take in what ``state_dict`` returned."""
        if self._optimiser is not None:
            self._optimiser.load_state_dict(state)
