"""When memory runs out: which settings of the method to lower."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import fields

import torch

from fewshot_ad.api import FewShotError, Method
from fewshot_ad.evaluation.identity import method_name

LOWERED = ("batch_size", "vectors_per_step", "inner_size", "width", "hidden", "views", "rotations")
CPU_ALLOCATOR = ("can't allocate memory", "not enough memory")


@contextmanager
def saying_what_to_lower(method: Method) -> Generator[None]:
    """Turn running out of memory into a word about the settings that it hangs on.

    Raises:
        FewShotError: memory ran out within.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_exhaustion(error):
            raise
        own = {field.name: getattr(method, field.name) for field in fields(method)}
        settings = [f"{name} (now {own[name]})" for name in LOWERED if name in own]
        settings.append(f"preprocess.size (now {method.preprocess.size})")
        raise FewShotError(
            f"memory ran out for {method_name(method)} on {method.device}: give fewer --shots, or "
            f"lower with --set one of {', '.join(settings)}"
        ) from error


def _is_exhaustion(error: Exception) -> bool:
    """CPU allocations that fail are plain runtime errors of torch."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error) for words in CPU_ALLOCATOR)
