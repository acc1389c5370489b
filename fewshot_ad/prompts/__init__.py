"""Prompt sets: what a method of text and images reads, as data in ``prompts/*.yaml``.

A *state* puts a word on a class name (``damaged {}``), a *template* puts the state into a sentence
(``a photo of a {}``). Every state meets every template.
"""

from fewshot_ad.prompts.files import list_prompts, load_prompts, save_prompts
from fewshot_ad.prompts.prompt_set import PromptSet
from fewshot_ad.prompts.wording import SLOT, check_class_name, check_phrase

__all__ = [
    "SLOT",
    "PromptSet",
    "check_class_name",
    "check_phrase",
    "list_prompts",
    "load_prompts",
    "save_prompts",
]
