"""Cells of a study and how they are computed: what every engine runs, wherever it runs it.

A *cell* is a method on one episode, and a row when it is finished. A *job* is the cells of a method
on a class, kept together because they share features, searches and meta-training.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, cast

from fewshot_ad.api import Dataset, Episode, FewShotError, KnownClasses, MetaTrained, Method
from fewshot_ad.data import load_dataset
from fewshot_ad.evaluation.checkpoints import trained
from fewshot_ad.evaluation.evaluator import Outcome, evaluate
from fewshot_ad.evaluation.evidence import evidence_of
from fewshot_ad.evaluation.exhaustion import saying_what_to_lower
from fewshot_ad.evaluation.identity import cell_of, method_identity
from fewshot_ad.evaluation.known import KnownImages, known_images, parse_known
from fewshot_ad.evaluation.leaks import KnownNames, check_leaks, image_digests
from fewshot_ad.evaluation.results import ResultRow, row_key, without_place
from fewshot_ad.images import EvalSize
from fewshot_ad.studies.store import Failure


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """The cells of a method on a class.

    Attributes:
        method: its configuration, neither trained nor fitted.
        source: the dataset, as ``--dataset`` takes it.
        trials: the episodes; a cell each.
        known: what the study says of known classes; None for the other classes of the dataset.
        leaves_out: the target is among the known classes and has to be left out of them.
        known_limit, eval_size, boxes: as the study has them.
        memory: bytes that this may hold at most.
        finished: keys of rows that need not be computed again.
        earlier: cells that this code has computed before, each with the key of its row.
        threads: that a worker may use for it; 0 for as many as it has.
    """

    method: Method
    source: str
    trials: tuple[Episode, ...]
    known: str | None
    leaves_out: bool
    known_limit: int
    eval_size: EvalSize
    boxes: bool
    memory: int = 0
    finished: frozenset[str] = frozenset()
    earlier: frozenset[tuple[str, str]] = frozenset()
    threads: int = 0

    @property
    def target(self) -> tuple[str, str]:
        """Name of the dataset, and class."""
        return self.trials[0].dataset, self.trials[0].target_class

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Name, parameters and weights of the method, as far as they change an outcome."""
        identity = method_identity(self.method)
        return identity | {"params": without_place(identity["params"], identity["weights_digest"])}

    @cached_property
    def training(self) -> str | None:
        """Digest of the meta-training that the cells wait for, shared by all jobs that share it."""
        if not isinstance(self.method, MetaTrained):
            return None
        own = (self.source, self.target[1]) if self.known is None else None
        left_out = self.target if self.leaves_out else None
        return _digest([self.identity, self.known, own, left_out, self.known_limit])

    def cell(self, trial: Episode) -> str:
        """Digest of a cell as it was declared, known before any image is read."""
        shown = [sample.path for sample in (*trial.support, *trial.anomalous_support)]
        judged = [sample.path for sample in trial.query]
        known = self.known if self.training else None
        what = (self.identity, self.source, known, self.known_limit, self.eval_size, self.boxes)
        return _digest([*what, trial.target_class, trial.seed, trial.manifest, shown, judged])

    def hole(self, trial: Episode, reason: str) -> Failure:
        """What is to be said of a cell that has no row."""
        dataset, target_class = self.target
        return Failure(
            cell=self.cell(trial),
            method=self.identity["method"],
            dataset=dataset,
            target_class=target_class,
            known=self.known if self.training else None,
            shots=trial.shots,
            seed=trial.seed,
            reason=reason,
        )

    def __str__(self) -> str:
        known = f" after {self.known}" if self.known and self.training else ""
        return f"{self.identity['method']} on {'/'.join(self.target)}{known}"


@dataclass(frozen=True)
class Done:
    """A cell is computed."""

    trial: Episode
    row: ResultRow
    seconds: float
    evidence: bytes | None


@dataclass(frozen=True)
class Kept:
    """A cell is in the store already."""

    trial: Episode
    key: str


@dataclass(frozen=True)
class Failed:
    """A cell cannot be computed."""

    trial: Episode
    reason: str


@dataclass(frozen=True)
class Trained:
    """The meta-training of a job is there; without seconds where it was in the cache."""

    seconds: float | None


@dataclass(frozen=True)
class Warned:
    """What a worker would have said on its own screen."""

    message: str


@dataclass(frozen=True)
class Ended:
    """Nothing more comes of a job; the reason is why, where its worker was lost."""

    lost: str | None = None


Answer = Done | Kept | Failed | Trained | Warned | Ended


def compute(job: Job) -> Iterator[Answer]:
    """Compute the cells of a job, one after another; one that fails does not stop the next."""
    missing: list[Episode] = []
    try:
        dataset, known = loaded(job.source), _known_images(job)
    except Exception as error:  # whatever is wrong with this job, the others go on
        yield from (Failed(trial, reason_of(error)) for trial in job.trials)
        return
    for trial in job.trials:
        try:
            key = _checked_key(job, dataset, trial, known)
            _check_unchanged(job, trial, key)
        except Exception as error:
            yield Failed(trial, reason_of(error))
            continue
        if key in job.finished:
            yield Kept(trial, key)
        else:
            missing.append(trial)
    if missing:
        yield from _computed(job, dataset, missing, known)


def prepared(job: Job) -> tuple[Method, Dataset]:
    """The method of a job, meta-trained where it has to be, and the dataset.

    Raises:
        FewShotError: a known class leaks into an episode, or an image cannot be read.
    """
    dataset, known = loaded(job.source), _known_images(job)
    if known is None or not isinstance(job.method, MetaTrained):
        return job.method, dataset
    for trial in job.trials:
        _checked_key(job, dataset, trial, known)
    return trained(job.method, cast(KnownClasses, known))[0], dataset


@cache
def loaded(source: str) -> Dataset:
    """A dataset of this process: what is listed and digested of it is known to all jobs."""
    return load_dataset(source)


def _known_images(job: Job) -> KnownNames | None:
    if not isinstance(job.method, MetaTrained):
        return None
    left_out = job.target if job.leaves_out else None
    shared = _shared_known(job.known, job.source, left_out, job.known_limit)
    return cast(KnownNames, shared)


@cache
def _shared_known(
    known: str | None, source: str, left_out: tuple[str, str] | None, limit: int
) -> KnownImages:
    """Known classes of this process, so that their images are digested once."""
    if known is not None:
        return parse_known(known, exclude=left_out, leave_out=True, limit=limit)
    dataset = loaded(source)
    return known_images([(dataset, dataset.classes)], exclude=left_out, limit=limit)


def _checked_key(job: Job, dataset: Dataset, trial: Episode, known: KnownNames | None) -> str:
    """Key of the row to come; refuses a leak before time is spent on meta-training."""
    if known is not None:
        samples = (*trial.support, *trial.anomalous_support, *trial.query)
        check_leaks(trial, image_digests(dataset, samples), known)
    return row_key(cell_of(job.method, dataset, trial, eval_size=job.eval_size, known=known))


def _check_unchanged(job: Job, trial: Episode, key: str) -> None:
    """Refuse a second row for a cell: beside the first one, a mean over both would be of neither.

    Raises:
        FewShotError: the store has a row of this cell and code with other images.
    """
    keys = {there for cell, there in job.earlier if cell == job.cell(trial)}
    if keys and key not in keys:
        raise FewShotError(
            f"images or masks of {'/'.join(job.target)}, or of what was known, have changed since "
            "the store got its row of this cell; put them back, or give another --out"
        )


def _computed(
    job: Job, dataset: Dataset, missing: Sequence[Episode], known: KnownNames | None
) -> Iterator[Answer]:
    method = job.method
    if isinstance(method, MetaTrained):
        began = time.perf_counter()
        try:
            with saying_what_to_lower(method):
                method, was_cached = trained(method, cast(KnownClasses, known))
        except Exception as error:
            yield from (Failed(trial, f"meta-training: {reason_of(error)}") for trial in missing)
            return
        yield Trained(None if was_cached else time.perf_counter() - began)
    left = list(missing)
    while left:
        yield from _until_failure(replace(job, method=method), dataset, left, known)


def _until_failure(
    job: Job, dataset: Dataset, left: list[Episode], known: KnownNames | None
) -> Iterator[Answer]:
    """Take episodes off the list until it is empty, or one has failed."""
    began = time.perf_counter()
    try:
        with saying_what_to_lower(job.method):
            for outcome in evaluate(
                job.method,
                dataset,
                list(left),
                eval_size=job.eval_size,
                known=known,
                boxes=job.boxes,
            ):
                evidence = _evidence(job, dataset, outcome)
                yield Done(left.pop(0), outcome.row, time.perf_counter() - began, evidence)
                began = time.perf_counter()
    except Exception as error:
        yield Failed(left.pop(0), reason_of(error))


def _evidence(job: Job, dataset: Dataset, outcome: Outcome) -> bytes:
    """Scores and curves of every cell; pictures of the first draw alone, since they take space."""
    is_first = outcome.episode.seed == min(trial.seed for trial in job.trials)
    found = evidence_of(outcome, dataset, job.method.preprocess, with_pictures=is_first)
    return found.to_bytes()


def reason_of(error: Exception) -> str:
    """An error in one line; a bug keeps the name of its error."""
    said = " ".join(str(error).split())
    return said if isinstance(error, FewShotError) else f"{type(error).__name__}: {said}"


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
