"""Exact nearest rows by matrix products in blocks; the whole distance matrix never exists.

A product proposes every row that rounding could have made one of the nearest; distances taken from
the differences themselves, in float32, decide. So a product in bfloat16, where the processor has
one, gives the very bits that a product in float32 gives: its rounding is larger, is bounded all the
same, and lets a handful of rows through instead of one.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.coarse_rows import CoarseQueries, CoarseRows, is_coarse_quick
from fewshot_ad.parts.pairs import paired_distances
from fewshot_ad.parts.proposals import WIDE, Pairs, at_most, kth_smallest, product_rounding
from fewshot_ad.parts.repeated_rows import distinct, place_in_group, with_copies


@dataclass(frozen=True)
class Blocks:
    """How much is looked at in one go; nothing of it changes an answer.

    Attributes:
        queries, rows: of one matrix product, so that its result stays in the processor's cache.
    """

    queries: int = 1024
    rows: int = 4096

    @staticmethod
    def suited_to(channels: int) -> "Blocks":
        """Smaller ones where the look at a product takes longer than the product itself."""
        return Blocks() if channels >= WIDE else Blocks(queries=512, rows=2048)


class Queries:
    """Rows that are searched for, made ready for any number of banks; equal rows are one.

    Args:
        rows: in float32, contiguous.
    """

    def __init__(self, rows: Float[Tensor, "q c"]) -> None:
        first, self.answer = distinct(rows)
        self.rows = rows if len(first) == len(rows) else rows[first]


class ProductIndex:
    """A bank that is searched by products; equal rows are searched once.

    Args:
        bank: rows in float32, contiguous, at least one.
        blocks: see :class:`Blocks`.
        coarse: propose in bfloat16; by default where that is quicker.

    Raises:
        FewShotError: a row holds NaN or infinite values.
    """

    def __init__(
        self,
        bank: Float[Tensor, "n c"],
        blocks: Blocks | None = None,
        coarse: bool | None = None,
    ) -> None:
        first, self._which = distinct(bank)
        self._rows = bank if len(first) == len(bank) else bank[first]
        self._blocks = blocks or Blocks.suited_to(bank.shape[1])
        self._squared = self._rows.square().sum(dim=1)
        check_finite(self._squared)
        wants_coarse = is_coarse_quick(bank) if coarse is None else coarse
        self._coarse = CoarseRows(self._rows) if wants_coarse else None

    @property
    def nbytes(self) -> int:
        """What it holds."""
        coarse = 0 if self._coarse is None else self._coarse.nbytes
        return self._rows.nbytes + self._which.nbytes + self._squared.nbytes + coarse

    def search(
        self, queries: Float[Tensor, "q c"] | Queries, k: int
    ) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
        """The ``k`` nearest rows of every query, the nearest first; the first of equally near wins.

        Args:
            queries: rows in float32, contiguous; or made ready, for several banks.
            k: at most as many as the bank has rows.

        Raises:
            FewShotError: a query holds NaN or infinite values.
        """
        asked = queries if isinstance(queries, Queries) else Queries(queries)
        size = self._blocks.queries
        k_here = min(k, len(self._rows))
        found = [self._search_block(block, k_here) for block in asked.rows.split(size)]
        distance, row = (torch.cat(parts) for parts in zip(*found, strict=True))
        check_finite(distance)
        if len(self._rows) < len(self._which):
            distance, row = with_copies(distance, row, self._which, k)
        return distance[asked.answer], row[asked.answer]

    def _search_block(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        distance = queries.new_full((len(queries), k), torch.inf)
        row = torch.zeros(len(queries), k, dtype=torch.int64, device=queries.device)
        coarse = None if self._coarse is None else CoarseQueries.of(queries, self._coarse.mean)
        for start in range(0, len(self._rows), self._blocks.rows):
            here = slice(start, start + self._blocks.rows)
            asked, found = self._propose(queries, coarse, here, distance)
            exact = paired_distances(queries, self._rows[here], asked, found)
            _keep_nearest(distance, row, asked, exact, found + start)
        return distance, row

    def _propose(
        self,
        queries: Tensor,
        coarse: CoarseQueries | None,
        here: slice,
        known: Float[Tensor, "q k"],
    ) -> Pairs:
        """Pairs (query, row of this block) that may be among the k nearest."""
        if self._coarse is not None and coarse is not None:
            pairs = self._coarse.propose(coarse, here, known)
            if pairs is not None:
                return pairs
        rows, squared = self._rows[here], self._squared[here]
        query_squared = queries.square().sum(dim=1, keepdim=True)
        score = torch.addmm(squared, queries, rows.T, alpha=-2)  # |q - b|^2 - |q|^2
        farthest = known[:, -1:].square() - query_squared
        limit = torch.minimum(kth_smallest(score, known.shape[1]), farthest)
        strays = product_rounding(queries) * (2 * query_squared + limit)  # |b| <= |q| + |q - b|
        return at_most(score, limit + strays)


def check_finite(values: Float[Tensor, "*shape"]) -> None:
    """Refuse distances, or what they are made of, that are no numbers.

    Raises:
        FewShotError: one is NaN or infinite.
    """
    if not torch.isfinite(values).all():
        raise FewShotError(
            "Features hold NaN or infinite values: check the images and the backbone's weights"
        )


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
    if distance.shape[1] == 1:
        _keep_one_nearest(distance[:, 0], row[:, 0], asked, exact, found)
        return
    place = place_in_group(asked, len(distance))
    width = int(place.max()) + 1
    distances = distance.new_full((len(distance), width), torch.inf)
    rows = row.new_zeros(len(row), width)
    distances[asked, place], rows[asked, place] = exact, found
    ranked = torch.cat([distance, distances], dim=1).sort(dim=1, stable=True)
    k = distance.shape[1]
    distance.copy_(ranked.values[:, :k])
    row.copy_(torch.cat([row, rows], dim=1).gather(1, ranked.indices[:, :k]))


def _keep_one_nearest(
    distance: Float[Tensor, " q"],
    row: Int[Tensor, " q"],
    asked: Int[Tensor, " p"],
    exact: Float[Tensor, " p"],
    found: Int[Tensor, " p"],
) -> None:
    """The same for one neighbour, without a sort; what was there stays if it is as near."""
    before = distance.clone()
    distance.scatter_reduce_(0, asked, exact, "amin")
    wins = exact == distance[asked]
    first = torch.full_like(row, torch.iinfo(row.dtype).max)
    first.scatter_reduce_(0, asked[wins], found[wins], "amin")
    torch.where(distance < before, first, row, out=row)
