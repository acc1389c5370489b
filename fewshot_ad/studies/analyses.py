"""Studies that ask more of an episode than its metrics.

``influence``: what each support image does, and whether other supports were better; ``sizes``:
metrics by the size of the defect, with images whole and in tiles. A cell is an episode as in any
study, and ends as a line of JSON in a file of its own.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fewshot_ad.api import Dataset, Episode, FewShotError, Method
from fewshot_ad.evaluation.exhaustion import saying_what_to_lower
from fewshot_ad.evaluation.lines import append_line, numbered_lines
from fewshot_ad.studies.cells import Job, prepared, reason_of
from fewshot_ad.studies.code_digest import code_digest
from fewshot_ad.studies.declared import Study
from fewshot_ad.studies.small_defects import size_facts
from fewshot_ad.studies.store import Failure
from fewshot_ad.studies.support_influence import (
    Trials,
    compare_choices,
    effects,
    influence_facts,
)

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What was found of one episode.

    Attributes:
        cell: digest of the cell as it was declared.
        asked: the analysis and what it was asked with.
        code: digest of the code of the method and of the analysis.
        dataset, target_class, known, method, params, shots, seed: the cell, to be read by people.
        facts: what ``influence_facts`` says, or ``{"groups": ...}`` of ``size_facts``.
    """

    cell: str
    asked: dict[str, Any]
    code: str
    dataset: str
    target_class: str
    known: str | None
    method: str
    params: dict[str, Any]
    shots: int
    seed: int
    facts: dict[str, Any]


Heard = Callable[[Job, Finding | Failure], None]


def findings_path(folder: Path, study: Study) -> Path:
    """Where the findings of a study lie."""
    return folder / f"{study.analysis}.jsonl"


def analyse(
    study: Study, jobs: Sequence[Job], folder: Path, on_end: Heard = lambda *_: None
) -> tuple[list[Finding], list[Failure]]:
    """Ask of every episode what the study asks, unless the file has an answer by this code.

    Each answer is written down before the next episode begins; one that fails does not stop the
    others, and is asked again by the next run.

    Args:
        study: what is asked.
        jobs: of ``grid.plan``.
        folder: of the file of findings.
        on_end: told of every episode when it is done with.

    Returns:
        All findings of the study, earlier ones included, and the episodes that have none.

    Raises:
        FewShotError: the file cannot be read or written.
    """
    path = findings_path(folder, study)
    known = {_name(each): each for each in load_findings(path)} if path.exists() else {}
    found: list[Finding] = []
    holes: list[Failure] = []
    for job in jobs:
        for end in _asked(study, job, known):
            if isinstance(end, Failure):
                holes.append(end)
            else:
                found.append(end)
                if _name(end) not in known:
                    append_line(path, {"format": FORMAT, **asdict(end)})
            on_end(job, end)
    return found, holes


def load_findings(path: Path) -> list[Finding]:
    """Every line of a file of findings.

    Raises:
        FewShotError: a line is none of a format that this version reads.
    """
    return [_parsed(f"{path}, line {n}", line) for n, line in numbered_lines(path)]


def _parsed(where: str, line: bytes) -> Finding:
    try:
        values = json.loads(line)
        if values.pop("format") != FORMAT:
            raise ValueError
        return Finding(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FewShotError(
            f"{where} is no finding of format {FORMAT}; choose another --out, or remove the line"
        ) from error


def _name(finding: Finding) -> str:
    return json.dumps([finding.cell, finding.asked, finding.code], sort_keys=True)


def _asked(study: Study, job: Job, known: dict[str, Finding]) -> Iterator[Finding | Failure]:
    """What comes of every episode of a job; nothing is prepared where all of it is known."""
    code, ready = code_digest(job.method, CODE[study.analysis]), None
    for trial in job.trials:
        wanted = Finding(
            cell=job.cell(trial),
            asked=_question(study, job, trial),
            code=code,
            dataset=trial.dataset,
            target_class=trial.target_class,
            known=job.known if job.training else None,
            method=job.identity["method"],
            params=job.identity["params"],
            shots=trial.shots,
            seed=trial.seed,
            facts={},
        )
        if _name(wanted) in known:
            yield known[_name(wanted)]
            continue
        try:
            with saying_what_to_lower(job.method):
                ready = prepared(job) if ready is None else ready
                wanted.facts.update(ANALYSES[study.analysis](*ready, trial, wanted.asked))
        except Exception as error:  # the next episode may do
            yield job.hole(trial, reason_of(error))
        else:
            yield wanted


def _question(study: Study, job: Job, trial: Episode) -> dict[str, Any]:
    """Drawn supports are the same for all seeds, so that one of these is asked about them."""
    if study.analysis == "sizes":
        return {"analysis": "sizes", "tiles": study.tiles}
    is_first = trial.seed == min(each.seed for each in job.trials)
    return {"analysis": study.analysis, "draws": study.draws if is_first else 0}


def _influence(
    method: Method, dataset: Dataset, trial: Episode, asked: dict[str, Any]
) -> dict[str, Any]:
    trials = Trials(method, dataset, trial.target_class, trial.query)
    found = effects(trials, trial.support, trial.seed)
    draws = asked["draws"]
    return influence_facts(found, compare_choices(trials, trial.shots, draws) if draws else None)


def _sizes(
    method: Method, dataset: Dataset, trial: Episode, asked: dict[str, Any]
) -> dict[str, Any]:
    return {"groups": size_facts(method, dataset, trial, asked["tiles"])}


ANALYSES = {"influence": _influence, "sizes": _sizes}
CODE = {
    "influence": "fewshot_ad.studies.support_influence",
    "sizes": "fewshot_ad.studies.small_defects",
}
