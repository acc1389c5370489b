"""A part of a study, so that a large grid can be run piece by piece, or by several machines."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from fewshot_ad.api import Episode, FewShotError
from fewshot_ad.studies.cells import Job, loaded

Axis = Callable[[Job, Episode], set[str]]


def _shots(job: Job, trial: Episode) -> set[str]:
    everything = loaded(job.source).train(job.target[1])
    is_full = frozenset(trial.support) == frozenset(everything)
    return {str(trial.shots), "full"} if is_full else {str(trial.shots)}


AXES: dict[str, Axis] = {
    "method": lambda job, _: {job.identity["method"]},
    "class": lambda job, _: {job.target[1]},
    "shots": _shots,
    "seed": lambda _, trial: {str(trial.seed)},
}


def part_of(jobs: Sequence[Job], only: Sequence[str]) -> list[Job]:
    """The cells that are among some values of every axis that is named.

    Args:
        jobs: of the whole study.
        only: as ``shots=4,full``; an axis that is named twice has the values of both.

    Raises:
        FewShotError: there is no such axis, the study has no such value, or no cell is left.
    """
    wanted: dict[str, set[str]] = {}
    for text in only:
        axis, _, values = text.partition("=")
        if axis not in AXES or not values:
            raise FewShotError(
                f"--only {text}: expected one of {', '.join(AXES)} and values, as shots=4,full"
            )
        wanted.setdefault(axis, set()).update(values.split(","))
    for axis, values in wanted.items():
        jobs = _among(jobs, axis, values)
    if not jobs:
        raise FewShotError(f"--only {' --only '.join(only)}: no cell of the study is all of these")
    return [*jobs]


def _among(jobs: Sequence[Job], axis: str, values: set[str]) -> list[Job]:
    found: set[str] = set()
    kept: list[Job] = []
    for job in jobs:
        named = {trial: AXES[axis](job, trial) for trial in job.trials}
        found.update(*named.values())
        trials = tuple(trial for trial in job.trials if named[trial] & values)
        if trials:
            kept.append(replace(job, trials=trials))
    if jobs and (unknown := sorted(values - found)):
        there = ", ".join(sorted(found, key=lambda name: (not name.isdigit(), len(name), name)))
        raise FewShotError(f"--only {axis}={','.join(unknown)}: this study has {there}")
    return kept
