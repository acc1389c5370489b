"""From what a study declares to the jobs that it comes to, all of it checked before any runs."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewshot_ad.api import Dataset, Episode, FewShotError, MetaTrained, Method
from fewshot_ad.assets import unknown_name
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.identity import method_identity, method_name
from fewshot_ad.evaluation.known import parse_classes
from fewshot_ad.evaluation.memory import memory_needed
from fewshot_ad.evaluation.results import without_place
from fewshot_ad.studies.cells import Job, loaded
from fewshot_ad.studies.declared import Variant
from fewshot_ad.studies.study_files import StudyFile

DATA = "{data}"

Configure = Callable[[Variant], Method]


@dataclass(frozen=True)
class _Target:
    """A class under test, and where the study names it."""

    number: int
    source: str
    dataset: Dataset
    class_name: str

    @property
    def name(self) -> tuple[str, str]:
        return self.dataset.name, self.class_name


@dataclass(frozen=True)
class _KnownSet:
    """What a study says of known classes, where it does, and their names."""

    place: tuple[str | int, ...]
    text: str | None
    names: frozenset[tuple[str, str]]


def plan(file: StudyFile, configure: Configure, data: Path | None = None) -> list[Job]:
    """The jobs of a study, class by class, so that all methods find the features of one class.

    Args:
        file: what is declared.
        configure: makes a method of what is said of it; refuses what cannot run.
        data: what ``{data}`` stands for.

    Raises:
        FewShotError: an unknown name or parameter, missing weights or images, a known set that
            holds a target, two cells that are the same; says at which line.
    """
    methods = list(_methods(file, configure))
    targets = list(_targets(file, data))
    known = _known_by_target(file, data)
    jobs = [
        job
        for target in targets
        for number, method in methods
        for job in _jobs(file, number, method, target, known[target.number])
    ]
    if not jobs:
        raise FewShotError(
            f"{file.path}: no cell is left; with 'overlap: skip' every known set holds every target"
        )
    return jobs


def _methods(file: StudyFile, configure: Configure) -> Iterator[tuple[int, Method]]:
    """Every method with the number of its entry; their weights are looked at here."""
    lines: dict[str, int] = {}
    for number, entry in enumerate(file.study.methods):
        with file.at("methods", number):
            for variant in entry.variants():
                method = configure(variant)
                identity = method_identity(method)
                params = without_place(identity["params"], identity["weights_digest"])
                same = json.dumps(identity | {"params": params}, sort_keys=True)
                if same in lines:
                    raise FewShotError(
                        f"two cells are the same: {entry.method} has these settings at entry "
                        f"{lines[same] + 1} of 'methods' already; leave one out"
                    )
                lines[same] = number
                yield number, method


def _targets(file: StudyFile, data: Path | None) -> Iterator[_Target]:
    seen: set[tuple[str, str]] = set()
    for number, target in enumerate(file.study.targets):
        with file.at("targets", number):
            source = _filled(target.dataset, data)
            dataset = loaded(source)
            for class_name in _classes(target.classes, dataset):
                if (source, class_name) in seen:
                    raise FewShotError(
                        f"two cells are the same: class {class_name} of {source} is a target "
                        "already; name it once"
                    )
                seen.add((source, class_name))
                yield _Target(number, source, dataset, class_name)


def _classes(names: Sequence[str], dataset: Dataset) -> tuple[str, ...]:
    if "all" in names:
        return tuple(dataset.classes)
    for name in names:
        if name not in dataset.classes:
            raise unknown_name(f"class of {dataset.name}", name, dataset.classes)
    return tuple(names)


def _known_by_target(file: StudyFile, data: Path | None) -> list[list[_KnownSet]]:
    """The known sets of every entry of targets: its own, or those of the study."""
    shared = list(_known_sets(file, file.study.known, ("known",), data))
    return [
        shared
        if target.known is None
        else list(_known_sets(file, target.known, ("targets", number, "known"), data))
        for number, target in enumerate(file.study.targets)
    ]


def _known_sets(
    file: StudyFile, specs: Sequence[str | None], place: tuple[str | int, ...], data: Path | None
) -> Iterator[_KnownSet]:
    for number, spec in enumerate(specs):
        with file.at(*place, number):
            text = None if spec is None else _filled(spec, data)
            pairs = [] if text is None else parse_classes(text)
            names = frozenset((dataset.name, name) for dataset, names in pairs for name in names)
            yield _KnownSet((*place, number), text, names)


def _filled(spec: str, data: Path | None) -> str:
    if DATA in spec and data is None:
        raise FewShotError(f"'{spec}' lies below {DATA}: say with --data where that folder is")
    return spec.replace(DATA, str(data))


def _jobs(
    file: StudyFile, number: int, method: Method, target: _Target, known_sets: Sequence[_KnownSet]
) -> Iterator[Job]:
    study = file.study
    with file.at("methods", number):
        trials = _trials(file, method, target)
        memory = sum(memory_needed(method, trials, study.eval_size).values())
    learns = isinstance(method, MetaTrained)
    for known in known_sets if learns else known_sets[:1]:
        is_within = learns and (known.text is None or target.name in known.names)
        if is_within and study.overlap == "skip":
            continue
        if is_within:
            _check_others(file, known, target)
        yield Job(
            method=method,
            source=target.source,
            trials=trials,
            known=known.text if learns else None,
            leaves_out=is_within,
            known_limit=study.known_limit,
            eval_size=study.eval_size,
            boxes=study.boxes,
            memory=memory,
        )


def _trials(file: StudyFile, method: Method, target: _Target) -> tuple[Episode, ...]:
    """The episodes of a class; 'full' and the number of images that it comes to are one."""
    study = file.study
    shown = study.anomalous_shots if method.track == "supervised" else 0
    drawn = episodes(
        target.dataset,
        target.class_name,
        shots=study.shots,
        seeds=study.seed_list,
        anomalous_shots=shown,
        query_limit=study.query_limit,
    )
    trials = tuple({(trial.seed, trial.support): trial for trial in drawn}.values())
    fewest = min(trial.shots for trial in trials)
    if fewest < method.min_shots:
        raise FewShotError(
            f"{method_name(method)} needs at least {method.min_shots} normal images of the target "
            f"class and 'shots' has {fewest}; leave that out or choose another method"
        )
    return trials


def _check_others(file: StudyFile, known: _KnownSet, target: _Target) -> None:
    """Refuse a known set that names the target, or that is empty without it.

    Raises:
        FewShotError: it does or is.
    """
    with file.at(*known.place):
        if known.text is not None:
            parse_classes(known.text, refused=target.name)
            others = known.names - {target.name}
        else:
            others = set(target.dataset.classes) - {target.class_name}
        if not others:
            raise FewShotError(
                f"no known class is left for {'/'.join(target.name)}; name known sets of other "
                "classes under 'known', or say 'overlap: skip'"
            )
