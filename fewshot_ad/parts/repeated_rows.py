"""Rows that are equal to the bit: searched for once, counted as often as they are there."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

RARE = 0.1  # with fewer repeated rows than this, searching for all is quicker


def distinct(rows: Float[Tensor, "n c"]) -> tuple[Int[Tensor, " m"], Int[Tensor, " n"]]:
    """First place of every different row, ascending, and which of these each row equals.

    A plain background repeats one feature hundreds of times: no need to search for each, in all.
    Where hardly a row repeats, all count as different.
    """
    weights = torch.arange(rows.shape[1], device=rows.device, dtype=rows.dtype).cos()
    key, order = (rows * weights).sum(dim=1).sort(stable=True)  # equal rows end up side by side
    if (key[1:] == key[:-1]).sum() < RARE * len(rows):
        every = torch.arange(len(rows), device=rows.device)
        return every, every
    ranked = rows[order]
    differs = torch.ones_like(order, dtype=torch.bool)
    differs[1:] = (ranked[1:] != ranked[:-1]).any(dim=1)
    first, by_place = order[differs].sort()
    group = torch.empty_like(order).index_copy_(0, order, differs.cumsum(dim=0) - 1)
    return first, by_place.argsort()[group]


def place_in_group(group: Int[Tensor, " n"], count: int) -> Int[Tensor, " n"]:
    """Of every element, how many of its group come before it; groups lie side by side, rising."""
    counts = group.bincount(minlength=count)
    return torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group]


def with_copies(
    distance: Float[Tensor, "q m"], row: Int[Tensor, "q m"], which: Int[Tensor, " n"], k: int
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The ``k`` nearest rows, from the ``m`` nearest distinct ones; the first of equally near wins.

    Args:
        distance: to the nearest distinct rows, all of them or ``k``.
        row: which distinct rows these are.
        which: of every row of the bank, which distinct row it equals.
        k: how many, at most as many as the bank has.
    """
    places = _first_places(which, int(which.max()) + 1, k)[row].flatten(1)
    repeated = distance.repeat_interleave(places.shape[1] // row.shape[1], dim=1)
    repeated = repeated.masked_fill(places < 0, torch.inf)
    by_place = places.argsort(dim=1, stable=True)
    ranked = repeated.gather(1, by_place).sort(dim=1, stable=True)
    return ranked.values[:, :k], places.gather(1, by_place).gather(1, ranked.indices[:, :k])


def _first_places(which: Int[Tensor, " n"], count: int, k: int) -> Int[Tensor, "m l"]:
    """The first ``k`` places of every distinct row, -1 where it has fewer."""
    group, places = which.sort(stable=True)
    place = place_in_group(group, count)
    found = which.new_full((count, min(k, int(place.max()) + 1)), -1)
    is_early = place < k
    found[group[is_early], place[is_early]] = places[is_early]
    return found
