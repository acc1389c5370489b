"""What is odd about a prompt set: sentences that repeat, are cut off, or cannot tell anything."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError
from fewshot_ad.methods.winclip import WinClip
from fewshot_ad.parts.clip import Clip, count_tokens
from fewshot_ad.prompts import LISTS, SLOT, PromptSet, Strings
from fewshot_ad.studies.prompt_scoring import clip_of

CONTEXT = 77
NEAR = 0.99
DUPLICATES, CONTRADICTIONS, LENGTH = "duplicates", "contradictions", "length"
NEAR_DUPLICATES, COINCIDING = "near-duplicates", "coinciding sides"
UNLISTED = "object"
"""A class that no set lists."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The check, and what it found, in one line."""

    check: str
    text: str


@dataclass(frozen=True, slots=True)
class Report:
    """Findings; the checks that were left out, and why."""

    findings: tuple[Finding, ...]
    left_out: tuple[str, ...] = ()
    reason: str = ""


def lint(
    prompts: PromptSet, class_names: Sequence[str], reader: WinClip, near: float = NEAR
) -> Report:
    """All checks, as far as they can be made.

    Args:
        prompts: the set.
        class_names: whose sentences are read.
        reader: its backbone embeds the sentences, where its weights are here.
        near: cosine from which on two embeddings count as the same.
    """
    try:
        clip, reason = clip_of(reader), ""
    except FewShotError as error:
        clip, reason = None, str(error)
    findings = lint_text(prompts, class_names, CONTEXT if clip is None else clip.context)
    if clip is not None and any(each.check == LENGTH for each in findings):
        clip, reason = None, "sentences are too long, mend these first"
    if clip is None:
        return Report(tuple(findings), (NEAR_DUPLICATES, COINCIDING), reason)
    return Report((*findings, *lint_embeddings(prompts, class_names, clip, near)))


def spoken_classes(prompts: PromptSet) -> tuple[str, ...]:
    """The classes that a set speaks of in its own way, and one that it does not know."""
    return (UNLISTED, *dict.fromkeys([*prompts.class_names, *prompts.overrides]))


def lint_text(
    prompts: PromptSet, class_names: Sequence[str], context: int = CONTEXT
) -> list[Finding]:
    """The checks that need no weights: same words, same sentences, length.

    Args:
        prompts: the set.
        class_names: whose sentences are read.
        context: tokens that the text tower reads, begin and end included.
    """
    found = [*_same_words(prompts)]
    for class_name in class_names:
        found += _same_sentences(prompts, class_name)
    return [*dict.fromkeys(found), *_too_long(prompts, class_names, context)]


def lint_embeddings(
    prompts: PromptSet, class_names: Sequence[str], clip: Clip, near: float = NEAR
) -> list[Finding]:
    """The checks that need a text tower: strings and sides that it hardly tells apart.

    Args:
        prompts: the set.
        class_names: whose sentences are embedded; of classes with the same lists the first.
        clip: the tower; every sentence must fit its context.
        near: cosine from which on two of them count as the same.
    """
    distinct = {tuple(prompts.of_class(name).values()): name for name in reversed(class_names)}
    found = [each for name in distinct.values() for each in _near(prompts, name, clip, near)]
    return list(dict.fromkeys(found))


def _same_words(prompts: PromptSet) -> Iterator[Finding]:
    for name in LISTS:
        for first, second in combinations(getattr(prompts, name), 2):
            if _words(first) == _words(second):
                text = f"{first!r} and {second!r} of {name} differ in case or punctuation only"
                yield Finding(DUPLICATES, text)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+|\{\}", text.lower())


def _same_sentences(prompts: PromptSet, class_name: str) -> Iterator[Finding]:
    sides = [Counter(side) for side in prompts.sentences(class_name)]
    for sentence in sorted(sides[0].keys() & sides[1].keys()):
        yield Finding(CONTRADICTIONS, f"{sentence!r} is normal and anomalous at once")
    for side, state_list in zip(sides, LISTS[1:], strict=True):
        lists = prompts.of_class(class_name)
        made = Counter(
            template.replace(SLOT, state.replace(SLOT, prompts.spoken(class_name)))
            for state in lists[state_list]
            for template in lists["templates"]
        )
        for sentence in (each for each in side if made[each] > 1):
            yield Finding(DUPLICATES, f"{sentence!r} is made {made[sentence]} times")


def _too_long(prompts: PromptSet, class_names: Sequence[str], context: int) -> Iterator[Finding]:
    """One line for all, since one long template makes many long sentences."""
    sentences = {
        sentence
        for class_name in class_names
        for side in prompts.sentences(class_name)
        for sentence in side
    }
    tokens = {sentence: count_tokens(sentence) for sentence in sorted(sentences)}
    cut_off = [sentence for sentence, count in tokens.items() if count > context]
    if cut_off:
        longest = max(cut_off, key=lambda sentence: tokens[sentence])
        yield Finding(
            LENGTH,
            f"{len(cut_off)} sentences have more than {context} tokens, {longest!r} has "
            f"{tokens[longest]}: they would be cut off",
        )


def _near(prompts: PromptSet, class_name: str, clip: Clip, near: float) -> Iterator[Finding]:
    lists, spoken = prompts.of_class(class_name), prompts.spoken(class_name)
    templates = lists["templates"]
    sides = {name: _embedded(lists[name], templates, spoken, clip) for name in LISTS[1:]}
    together = torch.cat([*sides.values()])
    yield from _pairs(templates, together.transpose(0, 1), near)
    for name, embedded in sides.items():
        yield from _pairs(lists[name], embedded, near)
    normal, anomalous = (functional.normalize(side.mean(dim=1), dim=1) for side in sides.values())
    cosines = normal @ anomalous.T
    for row, column in (cosines > near).nonzero().tolist():
        yield Finding(
            COINCIDING,
            f"{lists[LISTS[1]][row]!r} is hardly told from {lists[LISTS[2]][column]!r}: cosine "
            f"{cosines[row, column]:.4f} ({spoken})",
        )


def _embedded(
    states: Strings, templates: Strings, spoken: str, clip: Clip
) -> Float[Tensor, "s t d"]:
    """Unit embeddings of every state in every template."""
    sentences = [
        template.replace(SLOT, state.replace(SLOT, spoken))
        for state in states
        for template in templates
    ]
    found = functional.normalize(clip.embed_sentences(sentences), dim=1)
    return found.unflatten(0, (len(states), len(templates)))


def _pairs(strings: Strings, embedded: Float[Tensor, "n m d"], near: float) -> Iterator[Finding]:
    """Strings whose sentences have nearly one direction, in the mean over their partners."""
    cosines = torch.einsum("nmd,kmd->nk", embedded, embedded) / embedded.shape[1]
    for row, column in (cosines.triu(diagonal=1) > near).nonzero().tolist():
        text = f"{strings[row]!r} and {strings[column]!r}: cosine {cosines[row, column]:.4f}"
        yield Finding(NEAR_DUPLICATES, text)
