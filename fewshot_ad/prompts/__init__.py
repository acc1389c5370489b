"""Prompt sets: what a method of text and images reads, as data in ``prompts/*.yaml``.

A *state* puts a word on a class name (``damaged {}``), a *template* puts the state into a sentence
(``a photo of a {}``). Every state meets every template.
"""

from fewshot_ad.prompts.files import check_new_file, list_prompts, load_prompts, save_prompts
from fewshot_ad.prompts.prompt_set import LISTS, PromptSet, Strings
from fewshot_ad.prompts.wording import SLOT, check_class_name, check_phrase

__all__ = [
    "LISTS",
    "SLOT",
    "PromptSet",
    "Strings",
    "check_class_name",
    "check_new_file",
    "check_phrase",
    "list_prompts",
    "load_prompts",
    "save_prompts",
]
