"""Rows in bfloat16 whose products propose nearest rows; the error of every product is bounded."""

from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import BFloat16, Float, Int16
from torch import Tensor

from fewshot_ad.parts.proposals import WIDE, Pairs, at_most, kth_smallest, product_rounding

BF16_ROUNDING = 2.0**-9
PIECES = 3  # of 8 bits each: a value in float32
BF16_FEATURES = ("avx512_bf16", "amx_bf16")  # of a processor: products several times as quick
CROWDED = 64  # proposals per query above which a float32 product is the cheaper one
SCALES = (1e-12, 1e12)  # lengths of rows between which nothing in bfloat16 vanishes or overflows
ROUNDED_AT_ONCE = 2**18  # values, which stay in the cache while they are looked at again


class CoarseQueries(NamedTuple):
    """What is asked for of :class:`CoarseRows`: factors of a product, lengths, and what is lost."""

    left: BFloat16[Tensor, "q d"]
    length: Float[Tensor, " q"]
    lost: Float[Tensor, " q"]

    @classmethod
    def of(cls, rows: Float[Tensor, "q c"], mean: Float[Tensor, " c"]) -> "CoarseQueries":
        """Rows less the mean of a bank."""
        left, length, lost = _rounded(rows, mean)
        left[:, : rows.shape[1]].neg_()
        left[:, -2 * PIECES : -PIECES] = _pieces(length.square() / 2)
        return cls(left, length, lost)


class CoarseRows:
    """Rows in bfloat16, less their mean: distances stay, and rounding is relative to what is left.

    One product gives |q - b|^2 / 2 = |q|^2 / 2 + |b|^2 / 2 - q.b, since both sides carry half the
    squared length of either in a few more channels. What rounding changes of it is bounded: with
    q' and b' for what is rounded, |q.b - q'.b'| <= |q - q'| |b| + |q'| |b - b'| (Cauchy and
    Schwarz), and the result is rounded once more. The lengths of all differences are taken, so the
    bound holds for any features.
    """

    def __init__(self, rows: Float[Tensor, "n c"]) -> None:
        # Of these rows: with one mean for many banks twice as many rows pass for the nearest.
        self.mean = rows.mean(dim=0)
        self._rows, self._length, self._lost = _rounded(rows, self.mean)
        self._rows[:, -PIECES:] = _pieces(self._length.square() / 2)
        self._share_lost = (self._lost / self._length.clamp_min(SCALES[0])).max()
        self._is_sane = bool(SCALES[0] < self._length.max() < SCALES[1])

    @property
    def nbytes(self) -> int:
        """What it holds."""
        return self._rows.nbytes + self._length.nbytes + self._lost.nbytes

    def propose(
        self, queries: "CoarseQueries", here: slice, known: Float[Tensor, "q k"]
    ) -> Pairs | None:
        """Pairs (query, row) that may be among the k nearest; None if these are too many."""
        if not self._is_sane:
            return None
        left, length, lost = queries
        half = (left @ self._rows[here].T).view(torch.int16)  # |q - b|^2 / 2, ordered as integers
        smallest = kth_smallest(half, known.shape[1]).view(torch.bfloat16).float()
        smallest = torch.minimum(smallest, known[:, -1:].square() / 2)
        pairs = at_most(half, self._limit(smallest, length[:, None], lost[:, None]))
        return None if len(pairs[0]) > CROWDED * len(left) else pairs

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


def is_coarse_quick(bank: Float[Tensor, "n c"]) -> bool:
    """Whether this machine multiplies rows like these quicker in bfloat16."""
    return bank.device.type == "cpu" and bank.shape[1] >= WIDE and _has_bf16_products()


@cache
def _has_bf16_products() -> bool:
    told = getattr(torch.cpu, "get_capabilities", dict)()  # older releases do not tell
    return any(told.get(name) for name in BF16_FEATURES)


def _rounded(
    rows: Float[Tensor, "n c"], mean: Float[Tensor, " c"]
) -> tuple[BFloat16[Tensor, "n d"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """The rows less a mean in bfloat16, their lengths, and the lengths of what rounding loses.

    Ones follow in every row, where the pieces of either side have their places.
    """
    count, channels = rows.shape
    rounded = rows.new_ones(count, channels + 2 * PIECES, dtype=torch.bfloat16)
    length, lost = rows.new_empty(2, count)
    at_once = max(1, ROUNDED_AT_ONCE // channels)
    for start in range(0, count, at_once):
        here = slice(start, start + at_once)
        centred = rows[here] - mean
        rounded[here, :channels] = centred
        torch.linalg.vector_norm(centred, dim=1, out=length[here])
        centred -= rounded[here, :channels]
        torch.linalg.vector_norm(centred, dim=1, out=lost[here])
    return rounded, length, lost


def _pieces(values: Float[Tensor, " n"]) -> BFloat16[Tensor, "n p"]:
    """Values in float32 as sums of values in bfloat16."""
    pieces: list[Tensor] = []
    for _ in range(PIECES):
        pieces.append(values.bfloat16())
        values = values - pieces[-1].float()
    return torch.stack(pieces, dim=1)
