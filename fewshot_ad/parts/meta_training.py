"""Shows residuals of known classes to a model per level; keeps the steps that carry over best."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from fewshot_ad.parts.boundary import RunningBoundary
from fewshot_ad.parts.known_residuals import LabelledResiduals
from fewshot_ad.parts.maps import fuse
from fewshot_ad.parts.residual_stage import ResidualForm
from fewshot_ad.parts.training import Adam, run_steps, step_generator

SELECTIONS = 5
SHARES = (0.05, 0.1, 0.2, 0.4)
SCALING_IMAGES = 8
JUDGED_IMAGES = 16
TINY = 1e-6


class LevelModel(nn.Module):
    """What is learned of the residuals of one level."""

    scale: "ResidualScale"

    @abstractmethod
    def learn(
        self,
        residuals: Float[Tensor, "b c h w"],
        cells: Bool[Tensor, "b h w"],
        step: int,
        generator: torch.Generator,
    ) -> None:
        """Take one optimisation step on labelled residuals."""

    @abstractmethod
    def score(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """Anomaly of every position; higher is more anomalous."""

    def progress(self) -> dict[str, Any]:
        """What a step changes besides weights and buffers: optimisers and running boundaries."""
        kept = {name: one.state_dict() for name, one in vars(self).items() if isinstance(one, Adam)}
        running = {
            n: asdict(one) for n, one in vars(self).items() if isinstance(one, RunningBoundary)
        }
        return {"adam": kept, "boundary": running}

    def take_progress(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``progress`` returned."""
        for name, state in saved["adam"].items():
            getattr(self, name).load_state_dict(state)
        for name, state in saved["boundary"].items():
            setattr(self, name, RunningBoundary(**state))


class ResidualScale(nn.Module):
    """Divides residuals by their root mean square over known normals: about one per channel.

    Gives the losses, whose constants are absolute, the same reach on every backbone and level.
    """

    rms: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rms", torch.ones(()))

    def forward(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Scaled residuals."""
        return residuals / self.rms

    @torch.no_grad()
    def measure(self, normals: Sequence[Float[Tensor, "b c h w"]]) -> None:
        """Take the scale from the normal images of known classes that weigh alike."""
        mean = torch.stack([maps.square().mean() for maps in normals]).mean()
        self.rms = mean.sqrt().clamp(min=TINY)


class LevelModels(nn.Module):
    """The models of all levels, and the scales on which their scores and plain distances meet.

    A level's learned score is centred and divided by its spread on known normal images, the plain
    residual distance of all levels likewise; ``share`` mixes the two. All constants come from known
    classes, none from a target.
    """

    centre: Tensor
    spread: Tensor
    distance: Tensor
    share: Tensor

    def __init__(self, levels: Sequence[LevelModel], form: ResidualForm) -> None:
        super().__init__()
        self.form: ResidualForm = form
        self.levels = list(levels)
        self.registered = nn.ModuleList(levels)  # the same again, where torch finds it
        self.register_buffer("centre", torch.zeros(len(levels)))
        self.register_buffer("spread", torch.ones(len(levels)))
        self.register_buffer("distance", torch.tensor([0.0, 1.0]))  # mean and spread
        self.register_buffer("share", torch.ones(()))

    def scores(self, residuals: list[Tensor]) -> list[Tensor]:
        """Anomaly of every position of every level, [b h w] each."""
        return self.mixed(*self.both(residuals))

    def mixed(self, learned: list[Tensor], plain: list[Tensor]) -> list[Tensor]:
        """Learned scores and plain distances, in the proportion of ``share``."""
        return [
            torch.lerp(one, other, self.share) for one, other in zip(plain, learned, strict=True)
        ]

    @torch.no_grad()
    def both(self, residuals: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Scaled learned scores and scaled plain distances of every level."""
        self.eval()
        learned = [
            (model.score(maps) - self.centre[level]) / self.spread[level]
            for level, (model, maps) in enumerate(zip(self.levels, residuals, strict=True))
        ]
        mean, spread = self.distance
        return learned, [(self._lengths(maps) - mean) / spread for maps in residuals]

    def _lengths(self, residuals: Tensor) -> Tensor:
        return lengths(residuals, self.form)

    @torch.no_grad()
    def rescale(self, normals: Sequence[list[Tensor]]) -> None:
        """Take the scales from residuals of known normal images, every class weighing alike."""
        self.eval()
        for level, model in enumerate(self.levels):
            centre, spread = _scale([model.score(maps[level]) for maps in normals])
            self.centre[level], self.spread[level] = centre, spread
        plain = [torch.cat([self._lengths(level).flatten() for level in maps]) for maps in normals]
        self.distance = torch.stack(_scale(plain))


def _scale(of_classes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over classes that weigh alike."""
    mean = torch.stack([values.mean() for values in of_classes]).mean()
    around = torch.stack([(values - mean).square().mean() for values in of_classes]).mean()
    return mean, around.sqrt().clamp(min=TINY)


def lengths(residuals: Float[Tensor, "b c h w"], form: ResidualForm) -> Float[Tensor, "b h w"]:
    """The plain residual distance of every position, whether residuals are squared or not."""
    squared = residuals if form == "squared" else residuals.square()
    return squared.sum(dim=1).sqrt()


class Course:
    """One run of meta-training.

    Args:
        models: what is trained, in place.
        residuals: of every known class, one entry per drawn support.
        held_out: share of the classes that judges instead of teaching; at least one class if the
            share is not 0 and three classes are known.
        learned_share: of the learned score in the mix; None lets the judges choose from ``SHARES``.
        steps: budget.
        batch_size: images per step, half of them anomalous where there are any.
        seed: of the choice of held-out classes and of the batches.
    """

    def __init__(
        self,
        *,
        models: LevelModels,
        residuals: Mapping[str, list[LabelledResiduals]],
        held_out: float,
        learned_share: float | None,
        steps: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.models = models
        self.steps, self.batch_size, self.seed = steps, batch_size, seed
        self.judges = draw_held_out(tuple(residuals), held_out, seed)
        self.selected_step = 0
        self._shares = SHARES if learned_share is None else (learned_share,)
        self._teaching = [residuals[name] for name in residuals if name not in self.judges]
        self._judging = [_fewer(one) for name in self.judges for one in residuals[name][:1]]
        self._best: tuple[float, int, dict[str, Tensor]] | None = None

    def run(self, resume: Path | None = None) -> None:
        """Train for the budget, then go back to the step that held-out classes preferred."""
        for level, model in enumerate(self.models.levels):
            model.scale.measure([maps[level] for maps in self._normals()])
        run_steps(
            self.steps,
            self._advance,
            label="meta-training",
            state=self._state,
            restore=self._restore,
            resume=resume,
        )
        if self._best is None:  # nobody judged: the last step it is
            self.models.rescale(self._normals())
            self.models.share.fill_(self._shares[len(self._shares) // 2])
            self.selected_step = self.steps
        else:
            _, self.selected_step, weights = self._best
            self.models.load_state_dict(weights)
        self.models.eval()

    def _advance(self, step: int) -> None:
        generator = step_generator(self.seed, step)
        maps, cells = self._draw(generator)
        for level, model in enumerate(self.models.levels):
            model.train()
            model.learn(maps[level], cells[level], step, generator)
        if self._judging and (step + 1) % max(1, self.steps // SELECTIONS) == 0:
            self._judge(step + 1)

    def _draw(self, generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        """A batch whose images come from random classes, normal and anomalous in turn."""
        drawn = []
        for place in range(self.batch_size):
            of_class = self._teaching[_below(len(self._teaching), generator)]
            one = of_class[_below(len(of_class), generator)]
            rows = (one.is_anomalous == (place % 2 == 0)).nonzero()[:, 0]
            rows = rows if len(rows) else torch.arange(len(one.is_anomalous))
            drawn.append(one.batch(rows[_below(len(rows), generator)][None]))
        maps, cells = zip(*drawn, strict=True)
        return _stacked(maps), _stacked(cells)

    def _judge(self, step: int) -> None:
        """Keep weights and share if the held-out classes are told apart better than ever before."""
        self.models.rescale(self._normals())
        parts = [self.models.both(one.maps) for one in self._judging]
        for share in self._shares:
            self.models.share.fill_(share)
            pairs = zip(self._judging, parts, strict=True)
            merit = sum(_merit(one, self.models.mixed(*part)) for one, part in pairs)
            if self._best is None or merit > self._best[0]:
                self._best = merit, step, deepcopy(self.models.state_dict())

    def _normals(self) -> list[list[Tensor]]:
        """Residuals of normal images of the teaching classes."""
        found = []
        for one in (of_class[0] for of_class in self._teaching):
            rows = (~one.is_anomalous).nonzero()[:SCALING_IMAGES, 0]
            if len(rows):
                found.append([maps[rows] for maps in one.maps])
        return found

    def _state(self) -> dict[str, Any]:
        progress = [model.progress() for model in self.models.levels]
        return {"models": self.models.state_dict(), "progress": progress, "best": self._best}

    def _restore(self, state: dict[str, Any]) -> None:
        self.models.load_state_dict(state["models"])
        for model, saved in zip(self.models.levels, state["progress"], strict=True):
            model.take_progress(saved)
        self._best = state["best"]


def draw_held_out(names: tuple[str, ...], share: float, seed: int) -> tuple[str, ...]:
    """The classes that select instead of teaching; none of fewer than three."""
    if not share or len(names) < 3:
        return ()
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    chosen = order[: max(1, round(share * len(names)))].tolist()
    return tuple(names[index] for index in sorted(chosen))


def _fewer(one: LabelledResiduals) -> LabelledResiduals:
    """At most ``JUDGED_IMAGES`` normal and as many anomalous images, evenly spread."""
    kinds = [(one.is_anomalous == kind).nonzero()[:, 0] for kind in (False, True)]
    rows = torch.cat([kind[:: -(-len(kind) // JUDGED_IMAGES) or 1] for kind in kinds])
    return LabelledResiduals(*one.batch(rows), one.is_anomalous[rows])


def _merit(one: LabelledResiduals, levels: list[Tensor]) -> float:
    """Mean of image and position AUROC; a class that cannot tell counts one half."""
    joint = fuse(levels, (levels[0].shape[-2], levels[0].shape[-1]))
    image = _auroc(one.is_anomalous, joint.flatten(1).amax(dim=1))
    return (image + _auroc(one.cells[0].flatten(), joint.flatten())) / 2


def _auroc(labels: Tensor, values: Tensor) -> float:
    if labels.all() or not labels.any():
        return 0.5
    return float(roc_auc_score(labels.cpu().numpy(), values.cpu().numpy()))


def _stacked(drawn: Sequence[list[Tensor]]) -> list[Tensor]:
    return [torch.cat(of_level) for of_level in zip(*drawn, strict=True)]


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (1,), generator=generator))
