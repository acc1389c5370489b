"""One prompt set: the strings of a file, and the sentences that they make for a class."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fewshot_ad.api import FewShotError
from fewshot_ad.prompts.wording import SLOT, check_class_name

Strings = tuple[str, ...]
Sentences = tuple[Strings, Strings]
LISTS = ("templates", "normal_states", "anomalous_states")


@dataclass(frozen=True, kw_only=True)
class PromptSet:
    """Templates and states, every string with one ``{}``.

    Attributes:
        name: that it is shipped under, or the file name with its suffix for a user's own.
        source: the paper or the people it comes from.
        templates: sentences around a state.
        normal_states, anomalous_states: phrases around a class name.
        class_names: the name to speak for the name that a dataset has.
        any_class: the name to speak for every class that ``class_names`` leaves out; empty for
            the dataset's own name with underscores read as spaces.
        overrides: lists that take the place of those above, by class and by the name of the list.
        groups: words by a name for them; the strings that hold one of the words are a group, which
            an ablation drops together.
        repeats: how often a string counts, where that is more than once.
        known: the classes on which the strings were chosen, as ``dataset/class``; the leak guard
            keeps them from being targets.
        notes: what a reader should know besides.
    """

    name: str
    source: str
    templates: Strings
    normal_states: Strings
    anomalous_states: Strings
    class_names: Mapping[str, str] = field(default_factory=dict[str, str])
    any_class: str = ""
    overrides: Mapping[str, Mapping[str, Strings]] = field(
        default_factory=dict[str, Mapping[str, Strings]]
    )
    groups: Mapping[str, Strings] = field(default_factory=dict[str, Strings])
    repeats: Mapping[str, int] = field(default_factory=dict[str, int])
    known: Strings = ()
    notes: str = ""

    def spoken(self, class_name: str) -> str:
        """The words for a class in a sentence.

        Raises:
            FewShotError: the class is not listed and its own name does not read as words.
        """
        if class_name in self.class_names:
            return self.class_names[class_name]
        words = self.any_class or " ".join(class_name.replace("_", " ").split())
        try:
            check_class_name(words)
        except FewShotError as error:
            raise FewShotError(
                f"prompts {self.name}: {error}; or speak another name with --class-name"
            ) from None
        return words

    def of_class(self, class_name: str) -> dict[str, Strings]:
        """The three lists that hold for a class, by name."""
        own = self.overrides.get(class_name, {})
        return {name: own.get(name, getattr(self, name)) for name in LISTS}

    def sentences(self, class_name: str, spoken: str | None = None) -> Sentences:
        """The normal and the anomalous sentences of a class, state after state.

        Args:
            class_name: as the dataset has it: picks overrides and the name to speak.
            spoken: speak this name in its place.

        Raises:
            FewShotError: the name to speak does not read as words.
        """
        if spoken is not None:
            check_class_name(spoken)
        words = spoken or self.spoken(class_name)
        lists = self.of_class(class_name)
        templates = self._repeated(lists["templates"])
        normal, anomalous = (
            tuple(
                template.replace(SLOT, state.replace(SLOT, words))
                for state in self._repeated(lists[name])
                for template in templates
            )
            for name in LISTS[1:]
        )
        return normal, anomalous

    def without(self, strings: Strings) -> "PromptSet":
        """A copy in which these strings are gone from every list; lists may become empty."""

        def kept(listed: Strings) -> Strings:
            return tuple(each for each in listed if each not in strings)

        overrides = {
            class_name: {name: kept(listed) for name, listed in own.items()}
            for class_name, own in self.overrides.items()
        }
        lists = {name: kept(getattr(self, name)) for name in LISTS}
        repeats = {text: count for text, count in self.repeats.items() if text not in strings}
        return replace(self, **lists, overrides=overrides, repeats=repeats)

    @property
    def strings(self) -> Strings:
        """Every template and state of any class, once, in the order of the file."""
        listed = [self.of_class(class_name) for class_name in ("", *self.overrides)]
        return tuple(
            dict.fromkeys(text for lists in listed for name in LISTS for text in lists[name])
        )

    def holding(self, words: str) -> Strings:
        """The strings in which these words stand, as words: ``flaw`` is not in ``flawless {}``."""
        pattern = re.compile(rf"(?<!\w){re.escape(words)}(?!\w)")
        return tuple(text for text in self.strings if pattern.search(text))

    def group(self, name: str) -> Strings:
        """The strings of a group, in the order of the file."""
        members = {text for words in self.groups[name] for text in self.holding(words)}
        return tuple(text for text in self.strings if text in members)

    @property
    def digest(self) -> str:
        """Short digest of all that the sentences depend on, whatever the file is called."""
        content = [self.class_names, self.any_class, self.overrides, self.repeats]
        text = json.dumps([[getattr(self, name) for name in LISTS], content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _repeated(self, listed: Strings) -> Strings:
        return tuple(text for text in listed for _ in range(self.repeats.get(text, 1)))
