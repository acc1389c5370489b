"""First weights from a seed."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded_weights(seed: int) -> Iterator[torch.Generator]:
    """Modules built inside draw their first weights from ``seed``, as PyTorch's defaults do.

    The global generators of torch (CPU) and numpy come out as they went in. Yields the generator in
    use, for weights that are drawn by hand.
    """
    numpy_state = np.random.get_state()  # noqa: NPY002  FrEIA draws from numpy's global generator
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            yield torch.default_generator
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
