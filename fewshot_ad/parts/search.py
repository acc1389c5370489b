"""The nearest rows of a memory bank, exactly, by matrix products in blocks.

A product proposes every row that rounding could have made one of the nearest; distances taken from
the differences themselves decide. So the answer for a query depends on nothing but that query and
the bank: not on its company, the sizes of blocks or the precision of the product.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_ad.api import FewShotError

Engine = Literal["product"]

RARE = 0.1  # with fewer repeated rows than this, searching for all is quicker


@dataclass(frozen=True)
class Blocks:
    """How much is looked at in one go; nothing of it changes an answer.

    Attributes:
        queries, rows: of one matrix product, so that their scores stay in the processor's cache.
        pairs: differences that are held at once, in values.
    """

    queries: int = 256
    rows: int = 4096
    pairs: int = 2**18


@torch.no_grad()
def nearest(
    queries: Float[Tensor, "q c"],
    bank: Float[Tensor, "n c"],
    k: int = 1,
    engine: Engine = "product",
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The ``k`` nearest bank rows of every query by Euclidean distance, the nearest first.

    Of equally near rows the first in the bank comes first.

    Args:
        queries: rows to look for.
        bank: rows to choose from.
        k: how many, at most as many as the bank has.
        engine: ``product`` is exact.

    Returns:
        Distances (L2, float32), and rows of the bank.

    Raises:
        FewShotError: the bank has fewer than ``k`` rows, or a feature is NaN or infinite.
    """
    if not 1 <= k <= len(bank):
        raise FewShotError(
            f"{k} nearest neighbours were asked for and the bank has {len(bank)} rows: ask for at "
            f"least one and at most {len(bank)}, or give more support images"
        )
    queries, bank = (rows.float().contiguous() for rows in (queries, bank))
    asked, answer = distinct(queries)
    first, which = distinct(bank)
    some = min(k, len(first))
    distance, row = nearest_by_product(queries[asked], bank[first], some)
    check_finite(distance)
    if len(first) == len(bank):
        return distance[answer], row[answer]
    distance, row = _with_copies(distance, row, _copies(which, len(first), k), k)
    return distance[answer], row[answer]


def check_finite(distances: Float[Tensor, "*shape"]) -> None:
    """Refuse distances that are no numbers.

    Raises:
        FewShotError: one is NaN or infinite.
    """
    if not torch.isfinite(distances).all():
        raise FewShotError(
            "Features hold NaN or infinite values: check the images and the backbone's weights"
        )


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


def nearest_by_product(
    queries: Float[Tensor, "q c"],
    bank: Float[Tensor, "n c"],
    k: int = 1,
    blocks: Blocks | None = None,
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """As :func:`nearest`, of rows that are in order; a distance that is no number stays infinite.

    The whole distance matrix never exists.
    """
    blocks = blocks or Blocks()
    distance = queries.new_full((len(queries), k), torch.inf)
    row = torch.zeros(len(queries), k, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), blocks.rows):
        rows = bank[start : start + blocks.rows]
        squared = rows.square().sum(dim=1)
        for begin in range(0, len(queries), blocks.queries):
            here = slice(begin, begin + blocks.queries)
            asked, found = _rivals(queries[here], rows, squared, distance[here])
            exact = _paired_distances(queries[here], rows, asked, found, blocks.pairs)
            _keep_nearest(distance[here], row[here], asked, exact, found + start)
    return distance, row


def _rivals(
    queries: Tensor, rows: Tensor, squared: Tensor, known: Float[Tensor, "q k"]
) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Pairs (query, row) that may be among the k nearest, rounding in the product allowed for."""
    query_squared = queries.square().sum(dim=1, keepdim=True)
    score = torch.addmm(squared, queries, rows.T, alpha=-2)  # |q - b|^2 - |q|^2
    last = _kth_smallest(score, known.shape[1])
    limit = torch.minimum(last, known[:, -1:].square() - query_squared)
    # A sum of c products in float32 strays by about eps sqrt(c) |q| |b|, and |b| <= |q| + |q - b|.
    stray = 4 * torch.finfo(score.dtype).eps * queries.shape[1] ** 0.5
    asked, row = (score <= limit + stray * (2 * query_squared + limit)).nonzero(as_tuple=True)
    return asked, row


def _kth_smallest(score: Float[Tensor, "q n"], k: int) -> Float[Tensor, "q 1"]:
    """Of every row; NaN if one is NaN, infinite if there are fewer than ``k``."""
    if k == 1:
        return score.amin(dim=1, keepdim=True)
    if k > score.shape[1]:
        return torch.full_like(score[:, :1], torch.inf)
    smallest = score.topk(k, dim=1, largest=False).values[:, -1:]
    return torch.where(score.isnan().any(dim=1, keepdim=True), torch.nan, smallest)


def _paired_distances(
    queries: Tensor, rows: Tensor, asked: Tensor, found: Tensor, limit: int
) -> Float[Tensor, " p"]:
    # Near-constant images propose millions of pairs: never hold all their differences at once.
    size = max(1, limit // queries.shape[1])
    pairs = zip(asked.split(size), found.split(size), strict=True)
    return torch.cat([(queries[q] - rows[b]).square().sum(dim=1).sqrt() for q, b in pairs])


def _keep_nearest(
    distance: Float[Tensor, "q k"],
    row: Int[Tensor, "q k"],
    asked: Int[Tensor, " p"],
    exact: Float[Tensor, " p"],
    found: Int[Tensor, " p"],
) -> None:
    """Fold proposed pairs, sorted by query and then row, into the ``k`` nearest so far."""
    if not len(asked):
        return
    counts = asked.bincount(minlength=len(distance))
    place = torch.arange(len(asked), device=asked.device) - (counts.cumsum(0) - counts)[asked]
    width = int(counts.max())
    distances = distance.new_full((len(distance), width), torch.inf)
    rows = row.new_zeros(len(row), width)
    distances[asked, place], rows[asked, place] = exact, found
    k = distance.shape[1]
    order = torch.cat([distance, distances], dim=1).sort(dim=1, stable=True)
    distance.copy_(order.values[:, :k])
    row.copy_(torch.cat([row, rows], dim=1).gather(1, order.indices[:, :k]))


def _copies(which: Int[Tensor, " n"], count: int, k: int) -> Int[Tensor, "m k"]:
    """The first ``k`` places of every distinct row, -1 where it has fewer."""
    group, places = which.sort(stable=True)
    counts = which.bincount(minlength=count)
    rank = torch.arange(len(which), device=which.device) - (counts.cumsum(0) - counts)[group]
    copies = which.new_full((count, k), -1)
    is_early = rank < k
    copies[group[is_early], rank[is_early]] = places[is_early]
    return copies


def _with_copies(
    distance: Float[Tensor, "q m"], row: Int[Tensor, "q m"], copies: Int[Tensor, "d k"], k: int
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The nearest ``k`` when every distinct row counts as often as the bank holds it."""
    rows = copies[row].flatten(1)
    distances = distance.repeat_interleave(copies.shape[1], dim=1)
    distances = distances.masked_fill(rows < 0, torch.inf)
    by_row = rows.argsort(dim=1, stable=True)
    ranked = distances.gather(1, by_row).sort(dim=1, stable=True)
    return ranked.values[:, :k], rows.gather(1, by_row).gather(1, ranked.indices[:, :k])
