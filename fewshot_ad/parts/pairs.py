"""Distances of given pairs of rows, taken from the differences themselves, in float32.

Searches propose pairs by whatever rounds and is quick; these distances decide. They hang on the
two rows alone: whoever asks for a pair, in whatever company, gets the same bits.
"""

import sys
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

AT_ONCE = {"cpu": 2**17}  # differences that are held at a time: these stay in the cache
ON_ACCELERATORS = 2**24


def paired_distances(
    queries: Float[Tensor, "q c"],
    rows: Float[Tensor, "n c"],
    asked: Int[Tensor, " p"],
    found: Int[Tensor, " p"],
) -> Float[Tensor, " p"]:
    """Distances between ``queries[asked]`` and ``rows[found]``; all four are contiguous."""
    # Elsewhere its wheels and PyTorch's bring an OpenMP each, which crash together (faiss-wheels,
    # issue 73): there FAISS is for those who ask for one of its indices.
    if queries.device.type == "cpu" and sys.platform == "linux":
        return _by_faiss(queries, rows, asked, found)
    return _in_parts(queries, rows, asked, found)


def _by_faiss(queries: Tensor, rows: Tensor, asked: Tensor, found: Tensor) -> Tensor:
    """FAISS reads either row where it lies, and holds no difference longer than a register does."""
    import faiss  # here, because it takes a while

    wrapped: Any = faiss  # SWIG makes its functions as it is imported
    distance = queries.new_empty(len(asked))
    places = (queries, asked, rows, found, distance)
    given = (wrapped.swig_ptr(tensor.detach().numpy()) for tensor in places)
    wrapped.pairwise_indexed_L2sqr(queries.shape[1], len(asked), *given)
    return distance.sqrt_()


def _in_parts(queries: Tensor, rows: Tensor, asked: Tensor, found: Tensor) -> Tensor:
    """Near-constant images propose millions of pairs: never hold all their differences at once."""
    at_once = AT_ONCE.get(queries.device.type, ON_ACCELERATORS)
    size = max(1, at_once // queries.shape[1])
    parts = zip(asked.split(size), found.split(size), strict=True)
    squared = [(queries[here] - rows[there]).square_().sum(dim=1) for here, there in parts]
    return torch.cat(squared).sqrt_()
