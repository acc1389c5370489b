"""Distances between all rows and all others: what a search must not miss any of, to the bit."""

import torch
from torch import Tensor

from fewshot_ad.parts.pairs import paired_distances


def every_distance(queries: Tensor, bank: Tensor) -> Tensor:
    """One line per query; the bits are those of ``paired_distances``, which has its own oracle."""
    asked = torch.arange(len(queries)).repeat_interleave(len(bank))
    found = torch.arange(len(bank)).repeat(len(queries))
    return paired_distances(queries, bank, asked, found).view(len(queries), len(bank))
