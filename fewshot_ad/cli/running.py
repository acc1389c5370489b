"""One run of ``eval``: which cells are left to do, the doing, and what is written of each."""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from fewshot_ad.api import Dataset, Episode, FewShotError, KnownClasses, MetaTrained, Method
from fewshot_ad.cli.screen import Screen
from fewshot_ad.evaluation.checkpoints import load_checkpoint, trained
from fewshot_ad.evaluation.evaluator import Outcome, evaluate
from fewshot_ad.evaluation.exhaustion import saying_what_to_lower
from fewshot_ad.evaluation.identity import cell_of, method_name
from fewshot_ad.evaluation.known import KnownImages, known_images, parse_known
from fewshot_ad.evaluation.leaks import KnownNames, check_leaks, image_digests
from fewshot_ad.evaluation.results import ResultRow, append, load, row_key
from fewshot_ad.image_files import write_image
from fewshot_ad.images import EvalSize
from fewshot_ad.report.overlays import Sheet

RESULTS, OVERLAYS = "results.jsonl", "overlays"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all the cells of one command share.

    Attributes:
        out: folder of the results file and the overlays.
        choose_known: the known classes of meta-training for a target class.
        checkpoint: a file to load in place of meta-training.
        boxes: whether to judge boxes too; rows without are computed again.
        draws_overlays: whether to paint a sheet of examples for the first seed.
    """

    dataset: Dataset
    out: Path
    eval_size: EvalSize
    choose_known: Callable[[str], KnownImages]
    checkpoint: Path | None
    draws_overlays: bool
    screen: Screen
    boxes: bool = False
    _stored: dict[str, ResultRow] = field(default_factory=dict[str, ResultRow])

    def __post_init__(self) -> None:
        """Take up what an earlier run has finished."""
        if self.results.exists():
            self._stored.update({row_key(row): row for row in load(self.results)})

    @property
    def results(self) -> Path:
        """The file of result rows."""
        return self.out / RESULTS

    @property
    def overlays(self) -> Path:
        """The folder of the sheets of examples."""
        return self.out / OVERLAYS

    def rows(self, method: Method, trials: Sequence[Episode]) -> list[ResultRow]:
        """The rows of the episodes of one class: found in the results file, or computed and added.

        Raises:
            FewShotError: see ``evaluate``, ``trained`` and ``append``.
        """
        target_class = trials[0].target_class
        method, known = self._with_known(method, target_class)
        keys = [self._key(method, episode, known) for episode in trials]
        missing = [e for e, key in zip(trials, keys, strict=True) if not self._is_done(key)]
        if len(missing) < len(trials):
            self.screen.say(
                f"{method_name(method)} on {target_class}: {len(trials) - len(missing)} of "
                f"{len(trials)} episodes are in {self.results} already and are not run again"
            )
        if missing:
            self._check_leaks(missing, known)
            self._compute(self._ready(method, known, target_class), missing, known)
        return [self._stored[key] for key in keys]

    def _is_done(self, key: str) -> bool:
        row = self._stored.get(key)
        return row is not None and (
            not self.boxes or row.box_ap is not None or "box_ap" in row.reasons
        )

    def _with_known(self, method: Method, target_class: str) -> tuple[Method, KnownNames | None]:
        """The method, from its checkpoint where one is given, and what it has seen or will see."""
        if not isinstance(method, MetaTrained):
            return method, None
        if self.checkpoint is None:
            return method, cast(KnownNames, self.choose_known(target_class))
        method = load_checkpoint(method, self.checkpoint)
        return method, _recorded(method)

    def _check_leaks(self, trials: Sequence[Episode], known: KnownNames | None) -> None:
        """Refuse a leak before time is spent on meta-training; the evaluator looks again."""
        if known is None:
            return
        for episode in trials:
            samples = (*episode.support, *episode.anomalous_support, *episode.query)
            check_leaks(episode, image_digests(self.dataset, samples), known)

    def _ready(self, method: Method, known: KnownNames | None, target_class: str) -> Method:
        """The method, meta-trained."""
        if not isinstance(method, MetaTrained) or not isinstance(known, KnownImages):
            return method
        name = method_name(method)
        self.screen.say(f"{name} for {target_class}: {len(known.names)} other classes are known")
        with saying_what_to_lower(method):
            method, was_cached = trained(method, cast(KnownClasses, known))
        if was_cached:
            self.screen.say(f"{name} for {target_class}: its checkpoint was in the cache")
        return method

    def _key(self, method: Method, episode: Episode, known: KnownNames | None) -> str:
        cell = cell_of(method, self.dataset, episode, eval_size=self.eval_size, known=known)
        return row_key(cell)

    def _compute(self, method: Method, trials: Sequence[Episode], known: KnownNames | None) -> None:
        what = f"scoring {method_name(method)} on {trials[0].target_class}"
        n_images = sum(len(episode.query) for episode in trials)
        with saying_what_to_lower(method), self.screen.progress(what, n_images) as bar:
            for outcome in evaluate(
                method,
                self.dataset,
                trials,
                eval_size=self.eval_size,
                known=known,
                boxes=self.boxes,
                on_image=lambda *_: bar.advance(),
            ):
                append(self.results, outcome.row)
                self._stored[row_key(outcome.row)] = outcome.row
                if self.draws_overlays and outcome.episode.seed == trials[0].seed:
                    self._paint(method, outcome)

    def _paint(self, method: Method, outcome: Outcome) -> None:
        episode, name = outcome.episode, method_name(method)
        words = (episode.dataset, episode.target_class, name, f"{episode.shots}-shot")
        stem = "-".join(re.sub(r"\W+", "_", word).strip("_") for word in words)
        path = self.overlays / f"{stem}-seed{episode.seed}.png"
        path.parent.mkdir(exist_ok=True)
        title = f"{', '.join(words)}, seed {episode.seed}"
        sheet = Sheet(self.dataset, episode, outcome.prediction, method.preprocess)
        write_image(path, sheet.paint(title))


def _recorded(method: MetaTrained) -> KnownNames:
    """What a checkpoint says it was trained on.

    Raises:
        FewShotError: it says nothing, so that nothing could keep the target out.
    """
    known = getattr(method, "known_", None)
    if not isinstance(known, KnownNames):
        raise FewShotError(
            f"{method_name(method)} does not tell what its checkpoint was trained on; 'load' must "
            "set 'known_' to the names and digests of the known classes"
        )
    return known


def choose_known(
    spec: str | None, source: Dataset, limit: int, leave_out: bool, target_class: str
) -> KnownImages:
    """The classes that ``--known`` names, or all of the target's dataset, less the target."""
    target = (source.name, target_class)
    if spec is None:
        return known_images([(source, source.classes)], exclude=target, limit=limit)
    return parse_known(spec, exclude=target, leave_out=leave_out, limit=limit)


def check_shots(methods: Iterable[Method], trials: Iterable[Episode]) -> None:
    """Refuse fewer shots than a method needs, before anything is computed.

    Raises:
        FewShotError: an episode shows too few images.
    """
    fewest = min(episode.shots for episode in trials)
    for method in methods:
        if fewest < method.min_shots:
            raise FewShotError(
                f"{method_name(method)} needs at least {method.min_shots} normal images of the "
                f"target class and --shots has {fewest}; leave that out or choose another method"
            )


def warn_of_ignored_anomalies(methods: Iterable[Method], anomalous_shots: int) -> None:
    """Say which methods do not look at the labelled anomalies that they are shown."""
    ignoring = [method_name(method) for method in methods if method.track != "supervised"]
    if anomalous_shots and ignoring:
        warnings.warn(
            f"{', '.join(ignoring)}: --anomalous-shots {anomalous_shots} is ignored, for only "
            "supervised methods learn from anomalies; those images are still taken from the query",
            stacklevel=2,
        )


def check_checkpoint(methods: Iterable[Method], path: Path | None) -> None:
    """Refuse a checkpoint that no method would read.

    Raises:
        FewShotError: none of the methods is meta-trained.
    """
    if path is not None and not any(isinstance(method, MetaTrained) for method in methods):
        raise FewShotError(f"--checkpoint {path}: none of these methods is meta-trained")


def check_writable(folder: Path) -> None:
    """Refuse an output folder that cannot be made or written to; creates nothing.

    Raises:
        FewShotError: what exists of the path is a file, or not writable.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise FewShotError(f"--out {folder}: {nearest} is a file; give a folder")
    if not os.access(nearest, os.W_OK):
        raise FewShotError(f"--out {folder}: {nearest} is not writable; choose another folder")
