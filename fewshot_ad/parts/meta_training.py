"""Shows residuals of known classes to a model per level; keeps the steps that carry over best."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.data_parallel import as_in_the_first, sharing
from fewshot_ad.parts.known_residuals import LabelledResiduals
from fewshot_ad.parts.level_models import LevelModels
from fewshot_ad.parts.maps import image_score, map_to_grid
from fewshot_ad.parts.training import progress_bar, run_steps, step_generator

SELECTIONS = 5
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
UNJUDGED_SHARE = 0.25
JUDGES_OF_SHARE = 3  # one or two classes, easy ones perhaps, say too little of how far to go
SCALING_IMAGES = 8
JUDGED_IMAGES = 16


class Course:
    """One run of meta-training.

    Args:
        models: what is trained, in place.
        residuals: of every known class, one entry per drawn support.
        to_map: scores of all levels to the anomaly map that users see, [b h w], linear in the
            scores. The judges see no other.
        held_out: share of the classes that judges instead of teaching; at least one class if the
            share is not 0 and three classes are known.
        learned_share: of the learned score in the mix; None lets the judges choose from ``SHARES``,
            and stands for ``UNJUDGED_SHARE`` where they are fewer than ``JUDGES_OF_SHARE``.
        steps: budget.
        batch_size: images per step, half of them anomalous where there are any.
        seed: of the choice of held-out classes and of the batches.

    Raises:
        FewShotError: no class that teaches has a normal image.
    """

    def __init__(
        self,
        *,
        models: LevelModels,
        residuals: Mapping[str, list[LabelledResiduals]],
        to_map: Callable[[list[Tensor]], Tensor],
        held_out: float,
        learned_share: float | None,
        steps: int,
        batch_size: int,
        seed: int,
    ) -> None:
        self.models, self._to_map = models, to_map
        self.steps, self.batch_size, self.seed = steps, batch_size, seed
        self.judges = draw_held_out(tuple(residuals), held_out, seed)
        self.selected_step = 0
        self._teaching = [residuals[name] for name in residuals if name not in self.judges]
        self._judging = [_fewer(one) for name in self.judges for one in residuals[name][:1]]
        free = SHARES if len(self._judging) >= JUDGES_OF_SHARE else (UNJUDGED_SHARE,)
        self._shares = free if learned_share is None else (learned_share,)
        self._normals = [maps for one in self._teaching if (maps := _normal_maps(one[0]))]
        self._best: tuple[float, int, dict[str, Tensor]] | None = None
        if not self._normals:
            raise FewShotError(
                f"none of the known classes {', '.join(residuals)} has a labelled normal image; "
                "meta-training needs one at least"
            )

    def run(self, resume: Path | None = None, identity: str = "") -> None:
        """Train for the budget, then go back to the step that held-out classes preferred.

        Args:
            resume: where the state is kept during the run, see ``parts.training.run_steps``.
            identity: of the run; what another one left behind is not taken up.
        """
        self._prepare()
        as_in_the_first(self.models.state_dict().values())
        run_steps(
            self.steps,
            self._advance,
            label="meta-training",
            state=self._state,
            restore=self._restore,
            resume=resume,
            identity=identity,
        )
        if self._best is None:  # nobody judged: the last step it is
            self.models.rescale(self._normals)
            self.models.share.fill_(self._shares[0])
            self.selected_step = self.steps
        else:
            _, self.selected_step, weights = self._best
            self.models.load_state_dict(weights)
        self.models.eval()

    def _prepare(self) -> None:
        with progress_bar() as bar:
            models = enumerate(self.models.levels)
            for level, model in bar.track(
                models, len(self.models.levels), description="preparing the levels"
            ):
                normals = [maps[level] for maps in self._normals]
                model.prepare(normals, [one.level(level) for of in self._teaching for one in of])

    def _advance(self, step: int) -> None:
        generator = step_generator(self.seed, step)
        maps, cells = self._draw(step, generator)
        with sharing():
            for level, model in enumerate(self.models.levels):
                model.train()
                model.learn(maps[level], cells[level], step, generator)
        if self._judging and _quota(step + 1, self.steps) > _quota(step, self.steps):
            self._judge(step + 1)

    def _draw(self, step: int, generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        """A batch whose images come from random classes, normal and anomalous in turn."""
        drawn = []
        for place in range(step * self.batch_size, (step + 1) * self.batch_size):
            of_class = self._teaching[_below(len(self._teaching), generator)]
            one = of_class[_below(len(of_class), generator)]
            rows = (one.is_anomalous == (place % 2 == 0)).nonzero()[:, 0]
            rows = rows if len(rows) else torch.arange(len(one.is_anomalous))
            drawn.append(one.batch(rows[_below(len(rows), generator)][None]))
        maps, cells = zip(*drawn, strict=True)
        return _stacked(maps), _stacked(cells)

    def _judge(self, step: int) -> None:
        """Keep weights and share if the held-out classes are told apart better than ever before."""
        self.models.rescale(self._normals)
        parts = [self._maps(one) for one in self._judging]
        for share in self._shares:
            self.models.share.fill_(share)
            pairs = zip(self._judging, parts, strict=True)
            merit = sum(_merit(one, torch.lerp(*part, share)) for one, part in pairs)
            if self._best is None or merit > self._best[0]:
                self._best = merit, step, deepcopy(self.models.state_dict())

    def _maps(self, one: LabelledResiduals) -> tuple[Tensor, Tensor]:
        """Anomaly maps by the plain distance alone and by what is learned alone."""
        learned, plain = self.models.both(one.maps)
        return self._to_map(plain), self._to_map(learned)

    def _state(self) -> dict[str, Any]:
        progress = [model.progress() for model in self.models.levels]
        return {"models": self.models.state_dict(), "progress": progress, "best": self._best}

    def _restore(self, state: dict[str, Any]) -> None:
        self.models.load_state_dict(state["models"])
        for model, saved in zip(self.models.levels, state["progress"], strict=True):
            model.take_progress(saved)
        self._best = state["best"]


def draw_held_out(names: tuple[str, ...], share: float, seed: int) -> tuple[str, ...]:
    """The classes that select instead of teaching; none of fewer than three, never all.

    Args:
        names: all known classes.
        share: how many of them, rounded, but one at least, and of nine or more as many as may
            choose the share of what is learned; 0 for none.
        seed: of the draw.
    """
    if not share or len(names) < 3:
        return ()
    least = JUDGES_OF_SHARE if len(names) >= JUDGES_OF_SHARE**2 else 1
    count = min(max(least, round(share * len(names))), len(names) - 1)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    return tuple(names[index] for index in sorted(order[:count].tolist()))


def _normal_maps(one: LabelledResiduals) -> list[Tensor]:
    """Residuals of the first few normal images, per level; nothing where there are none."""
    rows = (~one.is_anomalous).nonzero()[:SCALING_IMAGES, 0]
    return [maps[rows] for maps in one.maps] if len(rows) else []


def _fewer(one: LabelledResiduals) -> LabelledResiduals:
    """At most ``JUDGED_IMAGES`` normal and as many anomalous images, evenly spread."""
    kinds = [(one.is_anomalous == kind).nonzero()[:, 0] for kind in (False, True)]
    rows = torch.cat([kind[:: max(1, ceil(len(kind) / JUDGED_IMAGES))] for kind in kinds])
    return LabelledResiduals(*one.batch(rows), one.is_anomalous[rows])


def _quota(step: int, steps: int) -> int:
    """How often the judges are asked in the first ``step`` of ``steps``."""
    return step * SELECTIONS // steps


def _merit(one: LabelledResiduals, anomaly_map: Tensor) -> float:
    """Mean of image and position AUROC; a class that cannot tell counts one half."""
    cells = one.cells[0]
    image = _auroc(one.is_anomalous, image_score(anomaly_map))
    on_grid = map_to_grid(anomaly_map, (cells.shape[-2], cells.shape[-1]))
    return (image + _auroc(cells.flatten(), on_grid.flatten())) / 2


def _auroc(labels: Tensor, values: Tensor) -> float:
    if labels.all() or not labels.any():
        return 0.5
    from sklearn.metrics import roc_auc_score  # here: it takes a second to import, and few need it

    return float(roc_auc_score(labels.cpu().numpy(), values.cpu().numpy()))


def _stacked(drawn: Sequence[list[Tensor]]) -> list[Tensor]:
    return [torch.cat(of_level) for of_level in zip(*drawn, strict=True)]


def _below(limit: int, generator: torch.Generator) -> int:
    return int(torch.randint(limit, (1,), generator=generator))
