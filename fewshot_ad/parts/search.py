"""The nearest rows of a memory bank: exact, or by an approximate index for very large banks.

Whatever engine proposes rows, distances taken from the differences themselves order them.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.products import ProductIndex

Engine = Literal["product", "faiss_flat", "faiss_hnsw", "faiss_ivf_pq"]


@runtime_checkable
class Index(Protocol):
    """A bank made ready to be searched."""

    def search(
        self, queries: Float[Tensor, "q c"], k: int
    ) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
        """Distances to the ``k`` nearest rows and which these are, the nearest first."""
        ...


@torch.no_grad()
def nearest(
    queries: Float[Tensor, "q c"],
    bank: Float[Tensor, "n c"],
    k: int = 1,
    engine: Engine = "product",
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """The ``k`` nearest bank rows of every query by Euclidean distance, the nearest first.

    ================ ===========================================================================
    ``product``      exact; of equally near rows the first in the bank comes first; the answer for
                     a query depends on nothing but that query and the bank
    ``faiss_flat``   exact but for ties: FAISS, a flat index
    ``faiss_hnsw``   approximate: a graph, slow to build, quick for one query in millions of rows
    ``faiss_ivf_pq`` approximate: compressed rows in cells, for banks that do not fit otherwise
    ================ ===========================================================================

    The bank searched last is remembered as it was made ready, so that one bank can be asked again
    and again, a few queries at a time.

    Args:
        queries: rows to look for.
        bank: rows to choose from.
        k: how many, at most as many as the bank has.
        engine: who proposes; see above.

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
    return _index_of(bank, engine).search(queries.float().contiguous(), k)


@dataclass(frozen=True)
class _Remembered:
    bank: Tensor
    version: int
    engine: Engine
    index: Index


_last: _Remembered | None = None


def _index_of(bank: Float[Tensor, "n c"], engine: Engine) -> Index:
    """The bank made ready: the one of the last call, if that was for the same bank, unchanged."""
    global _last  # noqa: PLW0603 - one bank is remembered, not every bank there was
    last, version = _last, 0 if bank.is_inference() else bank._version
    if last is None or last.bank is not bank or (last.version, last.engine) != (version, engine):
        index = _built(bank.float().contiguous(), engine)
        _last = last = _Remembered(bank, version, engine, index)
    return last.index


def _built(rows: Float[Tensor, "n c"], engine: Engine) -> Index:
    if engine == "product":
        return ProductIndex(rows)
    from fewshot_ad.parts.faiss_indices import FaissIndex  # here, because it takes a while

    return FaissIndex(rows, engine)
