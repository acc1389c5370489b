"""A prompt set chosen string by string on known classes, never on the target."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from fewshot_ad.api import Dataset, Episode, FewShotError
from fewshot_ad.evaluation.leaks import KnownNames, check_leaks, image_digests
from fewshot_ad.prompts import LISTS, PromptSet
from fewshot_ad.studies.prompt_scoring import EmbeddedClass

LEAST_GAIN = 5e-4

Chosen = tuple[frozenset[int], ...]
"""The places of the chosen strings in the templates, the normal and the anomalous states."""


@dataclass(frozen=True, slots=True)
class Step:
    """The string that was added, and the mean metric over the known classes after it."""

    added: str
    score: float


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a search.

    Attributes:
        prompts: the chosen strings, in the order of the set they come from.
        score: its mean metric over the known classes, which flatters it.
        full_score: that of the whole set.
        steps: how the chosen set grew; empty where the whole set is best.
        n_judged: sets that were tried.
    """

    prompts: PromptSet
    score: float
    full_score: float
    steps: tuple[Step, ...]
    n_judged: int


def search(
    prompts: PromptSet,
    known: Sequence[EmbeddedClass],
    metric: str,
    *,
    beam: int = 1,
    least_gain: float = LEAST_GAIN,
    on_set: Callable[[], None] = lambda: None,
) -> Found:
    """Grow a set from one template, one normal and one anomalous state.

    The best single template comes first, judged with all states, then the best single state of each
    side; then whatever string adds most, until none adds ``least_gain``. The whole set competes
    too. Overrides, repeats and groups are left out: they speak of classes that the known ones say
    nothing about, and of strings that may be gone.

    Args:
        prompts: where strings are taken from.
        known: the classes that judge, by their mean.
        metric: name of a metric of ``evaluation.metrics``.
        beam: how many sets are grown side by side; 1 is greedy.
        least_gain: in units of the metric.
        on_set: called after every set that was judged.

    Raises:
        FewShotError: beam or gain out of range, or a class has no value of the metric.
    """
    if beam < 1 or least_gain < 0:
        raise FewShotError(
            f"beam is {beam} and least gain {least_gain}: expected 1 or more, and 0 or more"
        )

    def judge(candidate: PromptSet) -> float:
        score = fmean(one.measure(candidate, metric) for one in known)
        on_set()
        return score

    pool = replace(prompts, overrides={}, repeats={}, groups={})
    return _Search(pool, judge, beam, least_gain).run()


def described(found: Found, metric: str, known: Sequence[str]) -> PromptSet:
    """The chosen set with its story: where it comes from, and which classes are no targets for it.

    Args:
        found: the outcome.
        metric: that was searched for.
        known: the classes that judged, as ``dataset/class``, beside those of the set it comes from.
    """
    parent = found.prompts
    notes = (
        f"Of {found.n_judged} sets this one had the best mean {metric} over {len(known)} known "
        f"classes: {found.score:.4f}, where all of {parent.name} has {found.full_score:.4f}."
    )
    return replace(
        parent,
        source=f"chosen by fewshot-ad prompts search from {parent.name} ({parent.source})",
        notes=notes,
        known=tuple(dict.fromkeys([*parent.known, *known])),
    )


def check_unseen(dataset: Dataset, trials: Iterable[Episode], known: KnownNames | None) -> None:
    """Refuse targets that are known, by name or by content, before anything is computed.

    Raises:
        FewShotError: see ``check_leaks``.
    """
    if known is None:
        return
    for episode in trials:
        samples = (*episode.support, *episode.anomalous_support, *episode.query)
        check_leaks(episode, image_digests(dataset, samples), known)


class _Search:
    def __init__(
        self, pool: PromptSet, judge: Callable[[PromptSet], float], beam: int, least_gain: float
    ) -> None:
        self._lists = [getattr(pool, name) for name in LISTS]
        self._pool, self._judge = pool, judge
        self._beam, self._least_gain = beam, least_gain
        self._scores: dict[Chosen, float] = {}
        self._steps: dict[Chosen, tuple[Step, ...]] = {}

    def run(self) -> Found:
        whole: Chosen = tuple(frozenset(range(len(each))) for each in self._lists)
        self._steps[whole] = ()
        full_score = self._score(whole)
        kept = [whole]
        for place in range(len(LISTS)):
            kept = self._best(self._singles(kept, place))
        best = self._grown(kept)
        if self._score(best) < full_score:
            best = whole
        return Found(
            self._subset(best), self._score(best), full_score, self._steps[best], len(self._scores)
        )

    def _grown(self, kept: list[Chosen]) -> Chosen:
        """Add strings while that pays."""
        best = kept[0]
        while kept := self._best(self._larger(kept)):
            if self._score(kept[0]) < self._score(best) + self._least_gain:
                break
            best = kept[0]
        return best

    def _singles(self, kept: Iterable[Chosen], place: int) -> Iterator[Chosen]:
        """One string in place of a whole list."""
        for chosen in kept:
            for index in range(len(self._lists[place])):
                yield self._changed(chosen, place, index, frozenset([index]))

    def _larger(self, kept: Iterable[Chosen]) -> Iterator[Chosen]:
        """One string more."""
        for chosen in kept:
            for place, listed in enumerate(self._lists):
                for index in sorted({*range(len(listed))} - chosen[place]):
                    yield self._changed(chosen, place, index, chosen[place] | {index})

    def _changed(self, old: Chosen, place: int, index: int, indices: frozenset[int]) -> Chosen:
        new = (*old[:place], indices, *old[place + 1 :])
        step = Step(self._lists[place][index], self._score(new))
        self._steps.setdefault(new, (*self._steps[old], step))
        return new

    def _best(self, candidates: Iterable[Chosen]) -> list[Chosen]:
        """The highest scores; of equal ones the smaller set, then the earlier strings."""

        def rank(chosen: Chosen) -> tuple[float, int, list[list[int]]]:
            return -self._score(chosen), sum(map(len, chosen)), [sorted(each) for each in chosen]

        return sorted(dict.fromkeys(candidates), key=rank)[: self._beam]

    def _score(self, chosen: Chosen) -> float:
        if chosen not in self._scores:
            self._scores[chosen] = self._judge(self._subset(chosen))
        return self._scores[chosen]

    def _subset(self, chosen: Chosen) -> PromptSet:
        lists = {
            name: tuple(listed[index] for index in sorted(indices))
            for name, listed, indices in zip(LISTS, self._lists, chosen, strict=True)
        }
        return replace(self._pool, **lists)
