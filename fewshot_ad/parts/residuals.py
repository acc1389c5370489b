"""Match every query position with its nearest support position, and take the difference.

The difference to the nearest normal feature is nearly free of what makes a class that class, so
that a model of residuals carries over to classes never seen (ResAD,
https://arxiv.org/abs/2410.20047, section 3.2).
"""

import hashlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.passing import is_passing_once
from fewshot_ad.parts.products import Blocks, ProductIndex, Queries
from fewshot_ad.parts.recent import Recent

Metric = Literal["euclidean", "cosine"]
SupportMaps = Float[Tensor, "n c hs ws"] | Sequence[Float[Tensor, "_ c hs ws"]]
Match = tuple[Float[Tensor, " q"], Int[Tensor, " q"]]
_Known = tuple[Float[Tensor, "c hs ws"], bytes]  # an image's features and their digest

BLOCKS: Blocks | None = None  # those that suit the bank


@torch.no_grad()
def match(
    queries: Float[Tensor, "q c"], bank: Float[Tensor, "n c"], metric: Metric = "euclidean"
) -> Match:
    """Exact nearest bank row of every query, in float32; the first of equally near rows wins.

    The answer for a query depends on nothing but that query and the bank: see ``parts.products``.

    Args:
        queries: rows to match.
        bank: rows to be matched with, at least one.
        metric: ``euclidean`` (NeurIPS 2024) or ``cosine`` (ResAD++).

    Returns:
        The distance (L2, or 1 - cosine similarity) and the row of the bank.

    Raises:
        FewShotError: the bank is empty, or a feature is NaN or infinite.
    """
    if not len(bank):
        raise FewShotError("The bank of support features is empty: give at least one support image")
    return _search(_prepare(queries, metric), _index(bank, metric), metric)


def match_maps(
    query_maps: Float[Tensor, "b c h w"],
    support_maps: Float[Tensor, "n c hs ws"],
    metric: Metric = "euclidean",
) -> tuple[Float[Tensor, "b h w"], Int[Tensor, "b h w"]]:
    """Nearest support position of every query position; :func:`take` reads the index."""
    bank = to_vectors(support_maps)
    nearest = [match(_image_rows(image), bank, metric) for image in query_maps]
    size = query_maps.shape[2:]
    distance, index = (
        torch.stack(parts).unflatten(1, size) for parts in zip(*nearest, strict=True)
    )
    return distance, index


def residual(
    queries: Float[Tensor, "*shape"],
    matched: Float[Tensor, "*shape"],
    form: Literal["signed", "squared"] = "signed",
) -> Float[Tensor, "*shape"]:
    """Difference to the matched features, ``signed`` (ResAD, eq. 1) or ``squared`` (ResAD++)."""
    difference = queries - matched
    return difference.square() if form == "squared" else difference


def take(
    support_maps: Float[Tensor, "n c hs ws"], index: Int[Tensor, "b h w"]
) -> Float[Tensor, "b c h w"]:
    """Support features at ``index``, which counts over images, then rows, then columns."""
    positions = support_maps[0, 0].numel()
    image, place = index // positions, index % positions
    return support_maps.flatten(2)[image, :, place].permute(0, 3, 1, 2).contiguous()


def match_distribution(
    residuals: Float[Tensor, "b c h w"], codes: Float[Tensor, "b c h w"], keep: float
) -> Float[Tensor, "b c h w"]:
    """Exact feature distribution matching, per channel of an image (EFDM, as ResAD++ uses it).

    Pulls every value towards the equally ranked value of ``codes``. ``keep`` is the share of the
    original value that stays: 1 changes nothing, 0 gives ``codes`` in the order of ``residuals``.
    ResAD++ uses 0.4 and calls it ``fdm_alpha``.
    """
    order = residuals.flatten(2).argsort(dim=2, stable=True)
    ranked_codes = codes.flatten(2).sort(dim=2).values
    target = torch.empty_like(ranked_codes).scatter_(2, order, ranked_codes)
    return torch.lerp(target.view_as(residuals), residuals, keep)


class NestedMatcher:
    """Match query maps with support maps, one pair of images at a time, and remember every pair.

    A bank of N support images is searched as N small banks whose minima are kept in order: the very
    result of one search over the concatenated bank. Supports are nested, so 1, 2, 4 and 8 shots
    share one search, and so do seeds that have a support image in common. Pairs are known by the
    digests of their features; the least recently used are forgotten once ``byte_limit`` is reached,
    and so are support images made ready for search, once these hold ``index_limit`` bytes.

    Query images that pass once (``parts.passing``) are searched in all supports at a time, which is
    quicker, and forgotten; unless the supports are larger than that.
    """

    def __init__(self, byte_limit: int = 256 * 2**20, index_limit: int = 128 * 2**20) -> None:
        self.searches = 0
        self._pairs = Recent[Match](byte_limit, lambda found: found[0].nbytes + found[1].nbytes)
        self._indices = Recent[ProductIndex](index_limit, lambda index: index.nbytes)
        self._digested: dict[int, _Digested] = {}

    @torch.no_grad()
    def __call__(
        self,
        query_maps: Float[Tensor, "b c h w"],
        support_maps: SupportMaps,
        metric: Metric = "euclidean",
    ) -> tuple[Float[Tensor, "b h w"], Int[Tensor, "b h w"]]:
        """Nearest support position of every query position, counted as :func:`take` does.

        Args:
            query_maps: features to match.
            support_maps: to be matched with, in one tensor or in several; the digest of a tensor
                that has been seen before is known.
            metric: see :func:`match`.

        Returns:
            Distance and index into the concatenated support positions.

        Raises:
            FewShotError: there is no support map, or a feature is NaN or infinite.
        """
        parts = [support_maps] if isinstance(support_maps, Tensor) else support_maps
        supports = [one for maps in parts for one in zip(maps, self._digests(maps), strict=True)]
        if not supports:
            raise FewShotError(
                "The bank of support features is empty: give at least one support image"
            )
        if is_passing_once() and self._can_hold(supports):
            ready = (Queries(_prepare(_image_rows(image), metric)) for image in query_maps)
            nearest = [self._search(queries, supports, metric) for queries in ready]
        else:
            pairs = zip(query_maps, self._digests(query_maps), strict=True)
            nearest = [self._match_image(*pair, supports, metric) for pair in pairs]
        size = query_maps.shape[2:]
        distance, index = (
            torch.stack(parts).unflatten(1, size) for parts in zip(*nearest, strict=True)
        )
        return distance, index

    def _can_hold(self, supports: Sequence[_Known]) -> bool:
        return sum(maps.nbytes for maps, _ in supports) <= self._indices.byte_limit

    def _match_image(
        self,
        image: Float[Tensor, "c h w"],
        digest: bytes,
        supports: Sequence[_Known],
        metric: Metric,
    ) -> Match:
        distance = torch.full((image[0].numel(),), torch.inf, device=image.device)
        index = torch.zeros_like(distance, dtype=torch.int64)
        positions, how = supports[0][0][0].numel(), f"{metric} {image.device}"
        queries = None
        for number, support in enumerate(supports):
            pair = digest, support[1], how
            found = self._pairs.find(pair)
            if found is None:
                queries = queries or Queries(_prepare(_image_rows(image), metric))
                near, row = self._search(queries, [support], metric)
                found = self._pairs.keep(pair, (near, row.int()))
            _keep_closer(distance, index, *found, number * positions)
        return distance, index

    def _search(self, queries: Queries, supports: Sequence[_Known], metric: Metric) -> Match:
        """Search support images together; they are made ready for all the queries to come."""
        self.searches += 1
        bank = b"".join(digest for _, digest in supports), f"{metric} {queries.rows.device}"
        index = self._indices.find(bank)
        if index is None:
            rows = torch.cat([_image_rows(maps) for maps, _ in supports])
            index = self._indices.keep(bank, _index(rows, metric))
        return _search(queries, index, metric)

    def _digests(self, maps: Float[Tensor, "n c h w"]) -> list[bytes]:
        """Of every image; known while the tensor lives and nobody has changed it."""
        if maps.is_inference():  # nothing tells of changes
            return [_digest(_image_rows(image)) for image in maps]
        name = id(maps)
        known = self._digested.get(name)
        if known is None or known.maps() is not maps or known.version != maps._version:
            digests = [_digest(_image_rows(image)) for image in maps]
            alive = weakref.ref(maps, lambda _: self._digested.pop(name, None))
            known = self._digested[name] = _Digested(alive, maps._version, digests)
        return known.digests


@dataclass(frozen=True)
class _Digested:
    maps: weakref.ref[Tensor]
    version: int
    digests: list[bytes]


def _index(bank: Tensor, metric: Metric) -> ProductIndex:
    return ProductIndex(_prepare(bank, metric), BLOCKS)


def _search(queries: Tensor | Queries, index: ProductIndex, metric: Metric) -> Match:
    distance, row = (found[:, 0] for found in index.search(queries, 1))
    return (distance.square() / 2 if metric == "cosine" else distance), row


def _prepare(rows: Tensor, metric: Metric) -> Tensor:
    rows = rows.float().contiguous()  # sums have other bits in another layout
    # Unit vectors are as near by Euclid as by angle: |a - b|^2 / 2 = 1 - cos(a, b).
    return functional.normalize(rows, dim=1) if metric == "cosine" else rows


def _keep_closer(distance: Tensor, index: Tensor, found: Tensor, row: Tensor, offset: int) -> None:
    """Fold the next bank into running minima; the first of equally near rows stays."""
    closer = found < distance
    torch.where(closer, found, distance, out=distance)
    torch.where(closer, row.long() + offset, index, out=index)


def _image_rows(image: Float[Tensor, "c h w"]) -> Float[Tensor, "hw c"]:
    return image.float().flatten(1).T.contiguous()


def _digest(rows: Float[Tensor, "n c"]) -> bytes:
    return hashlib.sha256(str(tuple(rows.shape)).encode() + rows.cpu().numpy().tobytes()).digest()


shared_matcher = NestedMatcher()
"""One memory for all methods of this process: a pair of feature maps matches alike whoever asks."""
