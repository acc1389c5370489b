"""A text tower whose answers are known: a sentence points where its words point."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from fewshot_ad.methods.winclip import WinClip
from fewshot_ad.parts.clip import class_prototypes
from fewshot_ad.prompts import PromptSet
from fewshot_ad.studies.prompt_scoring import EmbeddedClass

WORDS = {  # directions; words that are not here point nowhere
    "whole": (1.0, 0.0, 0.0),
    "fine": (1.0, 0.0, 0.0),
    "cracked": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "photo": (0.1, 0.1, 0.0),
    "picture": (0.1, 0.1, 0.0),
}
FILLER = (0.01, 0.01, 0.0)


def embed(sentences: Iterable[str]) -> torch.Tensor:
    found = [
        [FILLER, *(WORDS.get(word, (0.0, 0.0, 0.0)) for word in each.split())] for each in sentences
    ]
    return torch.tensor(np.array([np.sum(vectors, axis=0) for vectors in found])).float()


@dataclass(kw_only=True, eq=False)
class StubWinClip(WinClip):
    """WinCLIP whose sentences are embedded by ``embed``; counts how often."""

    calls: list[str] = field(default_factory=list)

    def embed_prompts(self, prompts: PromptSet, target_class: str) -> torch.Tensor:
        self.calls.append(target_class)
        return class_prototypes(*map(embed, prompts.sentences(target_class)))


def image_class(name: str, points: Any, is_anomalous: Any) -> EmbeddedClass:
    """A class of images that lie at these points, judged as images alone."""
    levels = (torch.tensor(points).float()[:, :, None, None],)
    truth = np.array(is_anomalous, dtype=bool)
    return EmbeddedClass(name, StubWinClip(), levels, truth, None, iter)


def cracked_class(name: str = "cup") -> EmbeddedClass:
    """Anomalous images point at ``cracked``, normal ones at ``whole``; half of both are very blue.

    Against ``whole {}``, ``cracked {}`` puts all four pairs right and ``blue {}`` three of them.
    """
    points = [(1, 0, 0), (1, 0, 3), (0, 1, 0), (0, 1, 3)]
    return image_class(name, points, [False, False, True, True])


def prompt_set(**changes: Any) -> PromptSet:
    lists = {
        "templates": ("a photo of a {}", "a picture of a {}"),
        "normal_states": ("whole {}",),
        "anomalous_states": ("cracked {}", "blue {}"),
    }
    return replace(PromptSet(name="stub", source="a test", **lists), **changes)
