"""Distances between images, both ways at once: how far every row is from the nearest of the other.

One product of two images serves either; as in ``parts.products``, it only proposes, and distances
taken from the differences themselves decide. So nothing hangs on which image comes first.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise, product

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.parts.coarse_rows import CoarseRows, is_coarse_quick
from fewshot_ad.parts.pairs import paired_distances
from fewshot_ad.parts.products import Blocks, check_finite
from fewshot_ad.parts.proposals import Pairs, at_most, product_rounding
from fewshot_ad.parts.repeated_rows import distinct

MANY = 256  # rows of an image below which a product is quicker than the bounds of a coarse one


class MutualRows:
    """The rows of several images, made ready to be compared two by two.

    Args:
        images: rows in float32, at least one of each image.
        blocks: how many rows of either image are looked at in one go.
        coarse: propose in bfloat16; by default where that is quicker.

    Raises:
        FewShotError: a row holds NaN or infinite values.
    """

    def __init__(
        self,
        images: Sequence[Float[Tensor, "_ c"]],
        blocks: Blocks | None = None,
        coarse: bool | None = None,
    ) -> None:
        found = [distinct(rows) for rows in images]
        self._which = [which for _, which in found]
        kept = [rows[first] for rows, (first, _) in zip(images, found, strict=True)]
        self._rows = torch.cat(kept)
        self._squared = self._rows.square().sum(dim=1)
        check_finite(self._squared)
        self._spans = [*pairwise(accumulate(map(len, kept), initial=0))]
        self._blocks = blocks or Blocks.suited_to(self._rows.shape[1])
        are_many = len(self._rows) >= MANY * len(images)
        wants_coarse = are_many and is_coarse_quick(self._rows) if coarse is None else coarse
        self._coarse = CoarseRows(self._rows) if wants_coarse else None

    def nearest(self, one: int, other: int) -> tuple[Float[Tensor, " p"], Float[Tensor, " q"]]:
        """Distance of every row of either image to the nearest row of the other one."""
        found = [
            torch.full((end - start,), torch.inf, device=self._rows.device)
            for start, end in (self._spans[one], self._spans[other])
        ]
        starts = self._spans[one][0], self._spans[other][0]
        for here, there in product(
            _parts(self._spans[one], self._blocks.queries),
            _parts(self._spans[other], self._blocks.rows),
        ):
            pairs = self._propose(here, there)
            exact = paired_distances(self._rows[here], self._rows[there], *pairs)
            for side, place, start, block in zip(found, pairs, starts, (here, there), strict=True):
                side.scatter_reduce_(0, place + (block.start - start), exact, "amin")
        return found[0][self._which[one]], found[1][self._which[other]]

    def _propose(self, here: slice, there: slice) -> Pairs:
        """Pairs of rows, either of which may be the other's nearest."""
        if self._coarse is not None:
            pairs = self._coarse.propose_mutually(here, there)
            if pairs is not None:
                return pairs
        squared, others = self._squared[here, None], self._squared[there]
        score = torch.addmm(others, self._rows[here], self._rows[there].T, alpha=-2) + squared
        limits = [
            smallest + 2 * product_rounding(self._rows) * (lengths + smallest.clamp_min(0))
            for smallest, lengths in (
                (score.amin(dim=1, keepdim=True), squared),
                (score.amin(dim=0), others),
            )
        ]
        return at_most(score, torch.maximum(*limits))


def _parts(span: tuple[int, int], size: int) -> list[slice]:
    start, end = span
    return [slice(place, min(place + size, end)) for place in range(start, end, size)]
