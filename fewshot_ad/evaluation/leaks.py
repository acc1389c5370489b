"""The leak guard: nothing of the class under test may have been seen in meta-training."""

import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from fewshot_ad.api import Dataset, Episode, FewShotError, Method, Sample
from fewshot_ad.prompts import load_prompts


@runtime_checkable
class KnownNames(Protocol):
    """What the guard has to know of meta-training: known classes, or the record in a checkpoint."""

    @property
    def names(self) -> tuple[str, ...]:
        """The known classes, as ``dataset/class``."""
        ...

    @property
    def digests(self) -> frozenset[str]:
        """The content of every image that was used."""
        ...


def image_digests(dataset: Dataset, samples: Iterable[Sample]) -> dict[Sample, str]:
    """The content digest of every sample."""
    return {sample: dataset.digest(sample) for sample in samples}


@dataclass(frozen=True, slots=True)
class ChosenOn:
    """The known classes of a prompt set; their images are not on record."""

    names: tuple[str, ...]
    digests: frozenset[str] = frozenset()


def seen_by(method: Method) -> KnownNames | None:
    """What a meta-trained method remembers of its known classes, in its field ``known_``.

    Of a method that reads text, the classes that its prompt set was chosen on.
    """
    known, prompts = (getattr(method, name, None) for name in ("known_", "prompts"))
    if isinstance(known, KnownNames):
        return known
    names = load_prompts(prompts).known if isinstance(prompts, str) else ()
    return ChosenOn(names) if names else None


def check_leaks(episode: Episode, digests: Mapping[Sample, str], known: KnownNames) -> None:
    """Refuse an episode whose class or images were seen in meta-training.

    Args:
        episode: the trial about to be run.
        digests: of all its samples; see ``image_digests``.
        known: the classes of meta-training.

    Raises:
        FewShotError: the target class is among the known ones, or an image of the support or the
            query has the same content as a known image; says which and how many.
    """
    target = f"{episode.dataset}/{episode.target_class}"
    if target in known.names:
        raise FewShotError(
            f"leak: the target class {target} is among the {len(known.names)} known classes; leave "
            "it out of the known classes and learn anew, or choose another target class."
        )
    for role, samples in _roles(episode):
        seen = [sample.path for sample in samples if digests[sample] in known.digests]
        if seen:
            raise FewShotError(
                f"leak: {len(seen)} of {len(samples)} {role} images of {target} have the same "
                f"content as images of the known classes: {_few(seen)}; remove these copies or "
                "choose other known classes."
            )


def warn_of_repeats(episode: Episode, digests: Mapping[Sample, str]) -> None:
    """Warn of support images that come twice, and of those that are judged as well."""
    shown = [*episode.support, *episode.anomalous_support]
    count = Counter(digests[sample] for sample in shown)
    twice = [sample.path for sample in shown if count[digests[sample]] > 1]
    queried = {digests[sample] for sample in episode.query}
    judged = [sample.path for sample in shown if digests[sample] in queried]
    where = f"{episode.dataset}/{episode.target_class}, seed {episode.seed}"
    for found, what in (
        (twice, "have the content of another support image: the shots are fewer than they say"),
        (judged, "are among the query images too: their scores flatter the method"),
    ):
        if found:
            warnings.warn(
                f"{where}: {len(found)} of {len(shown)} support images {what}: {_few(found)}.",
                stacklevel=3,
            )


def _roles(episode: Episode) -> tuple[tuple[str, tuple[Sample, ...]], ...]:
    shown = episode.support + episode.anomalous_support
    return ("support", shown), ("query", episode.query)


def _few(paths: Collection[str], at_most: int = 3) -> str:
    more = len(paths) - at_most
    return ", ".join([*paths][:at_most]) + (f" and {more} more" if more > 0 else "")
