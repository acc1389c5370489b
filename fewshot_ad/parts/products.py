"""Exact nearest rows by matrix products in blocks; the whole distance matrix never exists.

A product proposes every row that rounding could have made one of the nearest; distances taken from
the differences themselves, in float32, decide. So a product in bfloat16, where the processor has
one, gives the very bits that a product in float32 gives: its rounding is larger, is bounded all the
same, and lets a handful of rows through instead of one.
"""

from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.repeated_rows import distinct, place_in_group, with_copies

BF16_ROUNDING = 2.0**-9
BF16_FEATURES = ("avx512_bf16", "amx_bf16")  # of a processor: products several times as quick
WIDE = 96  # with fewer channels a product costs no more than the look at its result
CROWDED = 64  # proposals per query above which a float32 product is the cheaper one
SCALES = (1e-12, 1e12)  # lengths of rows between which nothing in bfloat16 vanishes or overflows

Pairs = tuple[Int[Tensor, " p"], Int[Tensor, " p"]]


@dataclass(frozen=True)
class Blocks:
    """How much is looked at in one go; nothing of it changes an answer.

    Attributes:
        queries, rows: of one matrix product, so that its result stays in the processor's cache.
        pairs: differences that are held at once, in values.
    """

    queries: int = 1024
    rows: int = 4096
    pairs: int = 2**18


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
        self._blocks = blocks or Blocks()
        self._squared = self._rows.square().sum(dim=1)
        check_finite(self._squared)
        wants_coarse = is_coarse_quick(bank) if coarse is None else coarse
        self._coarse = CoarseRows(self._rows) if wants_coarse else None

    def search(
        self, queries: Float[Tensor, "q c"], k: int
    ) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
        """The ``k`` nearest rows of every query, the nearest first; the first of equally near wins.

        Args:
            queries: rows in float32, contiguous.
            k: at most as many as the bank has rows.

        Raises:
            FewShotError: a query holds NaN or infinite values.
        """
        asked, answer = distinct(queries)
        blocks = queries[asked].split(self._blocks.queries)
        found = [self._search_block(block, min(k, len(self._rows))) for block in blocks]
        distance, row = (torch.cat(parts) for parts in zip(*found, strict=True))
        check_finite(distance)
        if len(self._rows) < len(self._which):
            distance, row = with_copies(distance, row, self._which, k)
        return distance[answer], row[answer]

    def _search_block(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        distance = queries.new_full((len(queries), k), torch.inf)
        row = torch.zeros(len(queries), k, dtype=torch.int64, device=queries.device)
        for start in range(0, len(self._rows), self._blocks.rows):
            here = slice(start, start + self._blocks.rows)
            asked, found = self._propose(queries, here, distance)
            exact = paired_distances(queries, self._rows[here], asked, found, self._blocks.pairs)
            _keep_nearest(distance, row, asked, exact, found + start)
        return distance, row

    def _propose(self, queries: Tensor, here: slice, known: Float[Tensor, "q k"]) -> Pairs:
        """Pairs (query, row of this block) that may be among the k nearest."""
        if self._coarse is not None:
            pairs = self._coarse.propose(queries, here, known)
            if pairs is not None:
                return pairs
        rows, squared = self._rows[here], self._squared[here]
        query_squared = queries.square().sum(dim=1, keepdim=True)
        score = torch.addmm(squared, queries, rows.T, alpha=-2)  # |q - b|^2 - |q|^2
        limit = _limit(score, query_squared, known)
        strays = _product_rounding(queries) * (2 * query_squared + limit)  # |b| <= |q| + |q - b|
        asked, row = (score <= limit + strays).nonzero(as_tuple=True)
        return asked, row


class CoarseRows:
    """Rows in bfloat16, less their mean: distances stay, and rounding is relative to what is left.

    With q' and b' for what is rounded, |q.b - q'.b'| <= |q - q'| |b| + |q'| |b - b'| (Cauchy and
    Schwarz), and the product is rounded once more. The lengths of all differences are taken, so
    the bound holds for any features.
    """

    def __init__(self, rows: Float[Tensor, "n c"]) -> None:
        self._mean = rows.mean(dim=0)
        self._rows = torch.empty_like(rows, dtype=torch.bfloat16)
        self._length = rows.new_empty(len(rows))
        lost = rows.new_empty(len(rows))
        for start in range(0, len(rows), Blocks.rows):
            here = slice(start, start + Blocks.rows)
            self._rows[here], self._length[here], lost[here] = _rounded(rows[here] - self._mean)
        self._share_lost = (lost / self._length.clamp_min(SCALES[0])).max()
        longest = self._length.max()
        self._is_sane = bool((longest > SCALES[0]) & (longest < SCALES[1]))

    def propose(self, queries: Tensor, here: slice, known: Float[Tensor, "q k"]) -> Pairs | None:
        """Pairs (query, row) that may be among the k nearest; None if these are too many."""
        if not self._is_sane:
            return None
        rounded, length, lost = _rounded(queries - self._mean)
        product = rounded @ self._rows[here].T
        score = torch.sub(self._length[here].square(), product, alpha=2)  # |q - b|^2 - |q|^2
        length, lost = length[:, None], lost[:, None]
        limit = _limit(score, length.square(), known)
        # |b| <= |q| + |q - b| for every row that matters; a quarter more, for what is lost.
        reach = 1.25 * (length + (length.square() + limit).clamp_min(0).sqrt())
        strays = lost + (length + lost) * (self._share_lost + BF16_ROUNDING)
        strays = 2 * reach * (strays + _product_rounding(queries) * reach)
        asked, row = (score <= limit + 2 * strays).nonzero(as_tuple=True)
        return None if len(asked) > CROWDED * len(queries) else (asked, row)


def check_finite(values: Float[Tensor, "*shape"]) -> None:
    """Refuse distances, or what they are made of, that are no numbers.

    Raises:
        FewShotError: one is NaN or infinite.
    """
    if not torch.isfinite(values).all():
        raise FewShotError(
            "Features hold NaN or infinite values: check the images and the backbone's weights"
        )


def is_coarse_quick(bank: Float[Tensor, "n c"]) -> bool:
    """Whether this machine multiplies rows like these quicker in bfloat16."""
    return bank.device.type == "cpu" and bank.shape[1] >= WIDE and _has_bf16_products()


def paired_distances(
    queries: Float[Tensor, "q c"],
    rows: Float[Tensor, "n c"],
    asked: Int[Tensor, " p"],
    found: Int[Tensor, " p"],
    limit: int = Blocks.pairs,
) -> Float[Tensor, " p"]:
    """Distances of pairs (query, row), from their differences, at most ``limit`` of these at once.

    Whoever asks for the distance of a pair gets the same bits.
    """
    # Near-constant images propose millions of pairs: never hold all their differences at once.
    size = max(1, limit // queries.shape[1])
    pairs = zip(asked.split(size), found.split(size), strict=True)
    return torch.cat([(queries[q] - rows[b]).square().sum(dim=1).sqrt() for q, b in pairs])


@cache
def _has_bf16_products() -> bool:
    told = getattr(torch.cpu, "get_capabilities", dict)()  # older releases do not tell
    return any(told.get(name) for name in BF16_FEATURES)


def _rounded(
    rows: Float[Tensor, "n c"],
) -> tuple[Tensor, Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The rows in bfloat16, their lengths, and the lengths of what rounding loses of them."""
    rounded = rows.bfloat16()
    lost = torch.linalg.vector_norm(rows - rounded.float(), dim=1)
    return rounded, torch.linalg.vector_norm(rows, dim=1), lost


def _product_rounding(rows: Float[Tensor, "n c"]) -> float:
    """A sum of c products in float32 strays by about eps sqrt(c) |q| |b|."""
    return 4 * torch.finfo(torch.float32).eps * rows.shape[1] ** 0.5


def _limit(
    score: Float[Tensor, "q n"], query_squared: Float[Tensor, "q 1"], known: Float[Tensor, "q k"]
) -> Float[Tensor, "q 1"]:
    """The score above which a row is none of the k nearest, but for rounding."""
    k = min(known.shape[1], score.shape[1])
    if k == 1:
        here = score.amin(dim=1, keepdim=True)
    else:
        here = score.topk(k, dim=1, largest=False).values[:, -1:]
    return torch.minimum(here, known[:, -1:].square() - query_squared)


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
    place = place_in_group(asked, len(distance))
    width = int(place.max()) + 1
    distances = distance.new_full((len(distance), width), torch.inf)
    rows = row.new_zeros(len(row), width)
    distances[asked, place], rows[asked, place] = exact, found
    ranked = torch.cat([distance, distances], dim=1).sort(dim=1, stable=True)
    k = distance.shape[1]
    distance.copy_(ranked.values[:, :k])
    row.copy_(torch.cat([row, rows], dim=1).gather(1, ranked.indices[:, :k]))
