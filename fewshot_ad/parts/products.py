"""Exact nearest rows by matrix products in blocks; the whole distance matrix never exists.

A product proposes every row that rounding could have made one of the nearest; distances taken from
the differences themselves, in float32, decide. So a product in bfloat16, where the processor has
one, gives the very bits that a product in float32 gives: its rounding is larger, is bounded all the
same, and lets a handful of rows through instead of one.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import BFloat16, Float, Int, Int16, Shaped
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.repeated_rows import distinct, place_in_group, with_copies

BF16_ROUNDING = 2.0**-9
PIECES = 3  # of 8 bits each: a value in float32
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
        pairs: differences that are held at once, in values; few enough to stay in the cache.
    """

    queries: int = 1024
    rows: int = 4096
    pairs: int = 2**17

    @staticmethod
    def suited_to(channels: int) -> "Blocks":
        """Smaller ones where the look at a product takes longer than the product itself."""
        return Blocks() if channels >= WIDE else Blocks(queries=512, rows=2048)


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
        farthest = known[:, -1:].square() - query_squared
        limit = torch.minimum(_kth_smallest(score, known.shape[1]), farthest)
        strays = product_rounding(queries) * (2 * query_squared + limit)  # |b| <= |q| + |q - b|
        return at_most(score, limit + strays)


class CoarseRows:
    """Rows in bfloat16, less their mean: distances stay, and rounding is relative to what is left.

    One product gives |q - b|^2 / 2 = |q|^2 / 2 + |b|^2 / 2 - q.b, since both sides carry half the
    squared length of either in a few more channels. What rounding changes of it is bounded: with
    q' and b' for what is rounded, |q.b - q'.b'| <= |q - q'| |b| + |q'| |b - b'| (Cauchy and
    Schwarz), and the result is rounded once more. The lengths of all differences are taken, so the
    bound holds for any features.
    """

    def __init__(self, rows: Float[Tensor, "n c"]) -> None:
        self._mean = rows.mean(dim=0)
        width = rows.shape[1] + 2 * PIECES
        self._rows = torch.empty(len(rows), width, dtype=torch.bfloat16, device=rows.device)
        self._length, self._lost = rows.new_empty(2, len(rows))
        for start in range(0, len(rows), Blocks.rows):
            here = slice(start, start + Blocks.rows)
            rounded, length, lost = _rounded(rows[here] - self._mean)
            ones = torch.ones(len(rounded), PIECES, dtype=torch.bfloat16, device=rows.device)
            self._rows[here] = torch.cat([rounded, ones, _pieces(length.square() / 2)], dim=1)
            self._length[here], self._lost[here] = length, lost
        self._share_lost = (self._lost / self._length.clamp_min(SCALES[0])).max()
        self._is_sane = bool(SCALES[0] < self._length.max() < SCALES[1])

    @property
    def nbytes(self) -> int:
        """What it holds."""
        return self._rows.nbytes + self._length.nbytes + self._lost.nbytes

    def propose(self, queries: Tensor, here: slice, known: Float[Tensor, "q k"]) -> Pairs | None:
        """Pairs (query, row) that may be among the k nearest; None if these are too many."""
        if not self._is_sane:
            return None
        rounded, length, lost = _rounded(queries - self._mean)
        ones = torch.ones(len(rounded), PIECES, dtype=torch.bfloat16, device=rounded.device)
        left = torch.cat([-rounded, _pieces(length.square() / 2), ones], dim=1)
        half = (left @ self._rows[here].T).view(torch.int16)  # |q - b|^2 / 2, ordered as integers
        smallest = _kth_smallest(half, known.shape[1]).view(torch.bfloat16).float()
        smallest = torch.minimum(smallest, known[:, -1:].square() / 2)
        pairs = at_most(half, self._limit(smallest, length[:, None], lost[:, None]))
        return None if len(pairs[0]) > CROWDED * len(queries) else pairs

    def propose_mutually(self, here: slice, there: slice) -> Pairs | None:
        """Pairs of these and those rows, either of which may be the other's nearest; as above."""
        if not self._is_sane:
            return None
        rounded, ones, pieces = self._rows[here].tensor_split((-2 * PIECES, -PIECES), dim=1)
        half = (torch.cat([-rounded, pieces, ones], dim=1) @ self._rows[there].T).view(torch.int16)
        limits = [
            self._limit(smallest.view(torch.bfloat16).float(), self._length[of], self._lost[of])
            for smallest, of in ((half.amin(dim=1), here), (half.amin(dim=0), there))
        ]
        pairs = at_most(half, torch.maximum(limits[0][:, None], limits[1]))
        return None if len(pairs[0]) > CROWDED * sum(half.shape) else pairs

    def _limit(
        self,
        smallest: Float[Tensor, "*shape"],
        length: Float[Tensor, "*shape"],
        lost: Float[Tensor, "*shape"],
    ) -> Int16[Tensor, "*shape"]:
        """The half squared distance above which a row is none of the nearest.

        Args:
            smallest: half the squared distance of the farthest of these, as the product has it.
            length: of the queries.
            lost: of them by rounding, in length.
        """
        limit = smallest.clamp_min(0)
        # |b| <= |q| + |q - b| for every row that matters; a quarter more, for what is lost.
        reach = 1.25 * (length + (2 * limit).sqrt())
        strays = reach * (lost + (length + lost) * self._share_lost)
        strays += reach.square() * product_rounding(self._rows)
        strays += 1.1 * BF16_ROUNDING * (limit + strays)  # of the result
        # It strays for the row that sets the limit, and again for a row that is held to it.
        rounded_up = (limit + 2 * strays) * (1 + 2 * BF16_ROUNDING)
        return rounded_up.bfloat16().view(torch.int16)


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
    size = min(len(asked), max(1, limit // queries.shape[1]))
    asking, answering = queries.new_empty(2, size, queries.shape[1])  # written over and over
    distance = queries.new_empty(len(asked))
    for start in range(0, len(asked), max(1, size)):
        here = slice(start, start + size)
        n = len(asked[here])
        torch.index_select(queries, 0, asked[here], out=asking[:n])
        torch.index_select(rows, 0, found[here], out=answering[:n])
        squares = asking[:n].sub_(answering[:n]).square_()
        torch.sum(squares, dim=1, out=distance[here])
    return distance.sqrt_()


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


def _pieces(values: Float[Tensor, " n"]) -> BFloat16[Tensor, "n p"]:
    """Values in float32 as sums of values in bfloat16."""
    pieces: list[Tensor] = []
    for _ in range(PIECES):
        pieces.append(values.bfloat16())
        values = values - pieces[-1].float()
    return torch.stack(pieces, dim=1)


def product_rounding(rows: Float[Tensor, "n c"]) -> float:
    """A sum of c products in float32 strays by about eps sqrt(c) |q| |b|."""
    return 4 * torch.finfo(torch.float32).eps * rows.shape[1] ** 0.5


def _kth_smallest(scores: Shaped[Tensor, "q n"], k: int) -> Shaped[Tensor, "q 1"]:
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
