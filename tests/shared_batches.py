"""What processes of a team do in tests: they leave what they found in files of their own."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fewshot_ad.api import FewShotError, MetaTrained, Preprocess
from fewshot_ad.evaluation.known import KnownImages, parse_known
from fewshot_ad.methods import load_method
from fewshot_ad.parts import known_residuals, training
from fewshot_ad.parts.data_parallel import average_gradients, in_shares, is_first, sharing

ROWS = (5, 1)  # shares of unequal length, and a process without any
STEPS = 8
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "resad": ("resad", {}),
    "resad with a trained constraintor": ("resad", {"constraintor": "conv"}),
    "resad_pp with a codebook": ("resad_pp", {"keep": 0.5, "codes": 16}),
}


def known() -> KnownImages:
    return parse_known("synthetic:gear+grid+screw", limit=2)


def learner(name: str) -> MetaTrained:
    """Small and quick; neither images nor positions of a batch can be halved."""
    file, changes = METHODS[name]
    small = {"backbone": "random:tiny", "steps": STEPS, "batch_size": 3, "vectors_per_step": 101}
    method = load_method(file, preprocess=Preprocess(size=64), **small, **changes)
    assert isinstance(method, MetaTrained)
    return method


class Network(nn.Module):
    """A convolution, a norm over the whole batch, and a head, in double precision."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv = nn.Conv2d(2, 3, 3, padding=1).double()
            self.norm = nn.BatchNorm2d(3).double()
            self.head = nn.Linear(3, 2).double()

    def loss(self, images: Tensor, apply: Callable[..., Tensor]) -> Tensor:
        """Means over some of the rows, and a quantile: no mean of the losses of shares."""
        maps = self.norm(apply(self.conv, images))
        values, others = apply(self._split, maps.permute(0, 2, 3, 1).flatten(0, 2))
        least = values.sort().values[len(values) // 4]
        return others[values > least].mean() + values[others < 0].square().mean() + least**2

    def _split(self, rows: Tensor) -> tuple[Tensor, ...]:
        return self.head(rows).unbind(dim=1)


def drawn(rows: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(rows, 2, 6, 6, generator=generator, dtype=torch.float64)


def gradients(rows: int) -> list[Tensor]:
    network = Network()
    with sharing():
        network.loss(drawn(rows), in_shares).backward()
        average_gradients([*network.parameters()])
    return [one.grad for one in network.parameters() if one.grad is not None]


@contextmanager
def recorded(kept: dict[str, list[Any]]) -> Iterator[pytest.MonkeyPatch]:
    """Keep every loss, and the names of the classes that are extracted here."""
    step, extract = training.Adam.step, known_residuals._against

    def noting_step(self: Any, loss: Callable[[], Tensor]) -> None:
        def noted() -> Tensor:
            found = loss()
            kept.setdefault("losses", []).append(float(found.detach()))
            return found

        step(self, noted)

    def noting_extract(known: Any, name: str, *rest: Any) -> Any:
        kept.setdefault("extracted", []).append(name)
        return extract(known, name, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.Adam, "step", noting_step)
        patch.setattr(known_residuals, "_against", noting_extract)
        yield patch


def learned(name: str, resume: Path | None = None) -> dict[str, Any]:
    """Losses of all steps and weights after the last."""
    kept: dict[str, list[Any]] = {}
    with recorded(kept):
        method: Any = learner(name).meta_train(known(), resume=resume)
    return {**kept, "weights": method.models_.state_dict(), "processes": method.known_.processes}


def broken(name: str, path: Path, at: int) -> dict[str, Any]:
    """The same of a run that is killed on the way, and of the one that goes on."""
    learn = type(learner(name).build_level(0, 4)).learn  # type: ignore[attr-defined]

    def dying(self: Any, residuals: Tensor, cells: Tensor, step: int, *rest: Any) -> None:
        if step == at:
            raise KeyboardInterrupt
        learn(self, residuals, cells, step, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "SAVE_EVERY_SECONDS", -1.0)
        patch.setattr(type(learner(name).build_level(0, 4)), "learn", dying)  # type: ignore[attr-defined]
        with pytest.raises(KeyboardInterrupt):
            learner(name).meta_train(known(), resume=path)
    return learned(name, resume=path)


def everything(device: str, folder: Path) -> None:
    """All that one team is asked for, so that processes start but once."""
    assert device == "cpu"
    found: dict[str, Any] = {name: learned(name) for name in METHODS}
    found["broken"] = broken("resad", folder / "partial", STEPS // 2)
    found["gradients"] = [gradients(rows) for rows in ROWS]
    torch.save(found, folder / f"{'first' if is_first() else 'second'}.pt")


def complaining(device: str) -> None:
    if not is_first():
        raise FewShotError("the second process has something to say")
    with sharing():
        in_shares(nn.Linear(2, 2), torch.ones(4, 2))  # waits for the other


def dying(device: str) -> None:
    if not is_first():
        os.kill(os.getpid(), signal.SIGKILL)
    with sharing():
        in_shares(nn.Linear(2, 2), torch.ones(4, 2))
