"""Which products may belong to nearest rows: all that rounding could have hidden, no more."""

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

WIDE = 96  # with fewer channels a product costs no more than the look at its result

Pairs = tuple[Int[Tensor, " p"], Int[Tensor, " p"]]
"""Queries, and rows of the bank."""


def product_rounding(rows: Float[Tensor, "n c"]) -> float:
    """A sum of c products in float32 strays by about eps sqrt(c) |q| |b|."""
    return 4 * torch.finfo(torch.float32).eps * rows.shape[1] ** 0.5


def kth_smallest(scores: Shaped[Tensor, "q n"], k: int) -> Shaped[Tensor, "q 1"]:
    """Of every row; the largest if there are fewer than ``k``."""
    if k == 1:
        return scores.amin(dim=1, keepdim=True)
    return scores.topk(min(k, scores.shape[1]), dim=1, largest=False).values[:, -1:]


def at_most(scores: Shaped[Tensor, "q n"], limit: Shaped[Tensor, "q _"]) -> Pairs:
    """Query and row of every score within its limit, sorted by query and then row."""
    if scores.device.type != "cpu":
        asked, row = (scores <= limit).nonzero(as_tuple=True)
        return asked, row
    # NumPy finds a few among millions several times as quickly as torch does.
    places, rows = divmod(np.flatnonzero(scores.numpy() <= limit.numpy()), scores.shape[1])
    return torch.from_numpy(places), torch.from_numpy(rows)
