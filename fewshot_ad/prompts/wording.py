"""What a string of a prompt set may look like: one slot, plain characters, single spaces."""

import re
import unicodedata

from fewshot_ad.api import FewShotError

SLOT = "{}"
_NAME = re.compile(r"[^\W_](?:[\w .,'/&+()-]*[\w.')])?")


def check_phrase(text: str) -> None:
    """Refuse a template or a state that has not exactly one slot.

    Raises:
        FewShotError: the slot is missing or doubled, or a character is not plain.
    """
    check_plain(text)
    slots = text.count(SLOT)
    if slots != 1:
        raise FewShotError(
            f"{text!r} has {slots or 'no'} slots, expected exactly one {SLOT} where the name goes"
        )
    if braces := re.search("[{}]", text.replace(SLOT, "")):
        raise FewShotError(
            f"{text!r} has a stray '{braces.group()}', expected the one slot {SLOT} and no braces"
        )


def check_class_name(text: str) -> None:
    """Refuse a spoken class name that would not read as words.

    Raises:
        FewShotError: it is empty, or has characters that no name of a thing has.
    """
    check_plain(text)
    if _NAME.fullmatch(text):
        return
    odd = "".join(dict.fromkeys(re.findall(r"[^\w .,'/&+()-]", text)))
    found = f"odd characters ({odd})" if odd else "a start or an end that is no letter or digit"
    raise FewShotError(
        f"class name {text!r} has {found}, expected words of letters and digits; "
        "spaces and - . , ' / & + ( ) may stand between"
    )


def check_known(text: str) -> None:
    """Refuse what does not name a class of a dataset.

    Raises:
        FewShotError: it is not of the form ``dataset/class``.
    """
    check_plain(text)
    if "/" not in text.strip("/"):
        raise FewShotError(f"{text!r} names no known class, expected dataset/class")


def check_plain(text: str) -> None:
    """Refuse what would not print as one line of words.

    Raises:
        FewShotError: it is empty, or has control characters or idle spaces.
    """
    if not text.strip():
        raise FewShotError("the text is empty, expected words")
    if not text.isprintable():
        odd = next(each for each in text if not each.isprintable())
        name = unicodedata.name(odd, "a control character").lower()
        raise FewShotError(f"{text!r} holds {name} (U+{ord(odd):04X}), expected printed characters")
    if text != " ".join(text.split()):
        raise FewShotError(f"{text!r} has spaces at an end or two in a row, expected single ones")
