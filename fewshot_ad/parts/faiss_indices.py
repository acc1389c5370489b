"""FAISS as the other engine of the search: a flat index, a graph, compressed rows in cells.

FAISS proposes more rows than are asked for; distances taken from the differences themselves, in
float32, choose and order. Seeds are fixed, and what threads would race for is built by one, so
that a bank always gives the same index.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import faiss
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_ad.parts.pairs import paired_distances
from fewshot_ad.parts.products import ProductIndex, check_finite

Kind = Literal["faiss_flat", "faiss_hnsw", "faiss_ivf_pq"]

SMALL = (
    39 * 256
)  # FAISS wants as many rows to learn a code of one byte; flat is quicker here anyway
NEIGHBOURS, BUILT_WITH, SEARCHED_WITH = 32, 80, 128  # of the graph: links, candidates looked at
ROWS_PER_CELL = 256
CELLS_PROBED = 0.125
CHANNELS_PER_BYTE = 4
PROPOSED = {"faiss_flat": 1, "faiss_hnsw": 2, "faiss_ivf_pq": 16}  # rows per row asked for,
MORE = 8  # and so many besides
QUERIES_AT_ONCE = 256


class FaissIndex:
    """A bank in an index of FAISS; one of fewer than ``SMALL`` rows is always searched flat.

    Args:
        rows: in float32, contiguous.
        kind: ``faiss_flat`` is exact but for ties, the others are not.

    Raises:
        FewShotError: a row holds NaN or infinite values.
    """

    def __init__(self, rows: Float[Tensor, "n c"], kind: Kind) -> None:
        check_finite(rows)
        self._rows = rows
        kind = "faiss_flat" if len(rows) < SMALL else kind
        self._proposed = PROPOSED[kind]
        self._index: Any = {"faiss_flat": _flat, "faiss_hnsw": _graph, "faiss_ivf_pq": _cells}[
            kind
        ](*rows.shape)
        with _one_thread():
            self._index.train(rows.cpu().numpy())
            self._index.add(rows.cpu().numpy())

    def search(
        self, queries: Float[Tensor, "q c"], k: int
    ) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
        """The ``k`` nearest of the rows that FAISS proposes, the nearest first.

        Raises:
            FewShotError: a query holds NaN or infinite values.
        """
        check_finite(queries)
        found = [self._search_block(block, k) for block in queries.split(QUERIES_AT_ONCE)]
        distance, row = (torch.cat(parts) for parts in zip(*found, strict=True))
        return distance, row

    def _search_block(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        proposed = min(self._proposed * k + MORE, len(self._rows))
        _, found = self._index.search(queries.cpu().numpy(), proposed)
        row = torch.from_numpy(found).to(queries.device).sort(dim=1).values
        asked = torch.arange(len(row), device=row.device).repeat_interleave(proposed)
        distance = paired_distances(queries, self._rows, asked, row.flatten().clamp_min(0))
        distance = distance.view_as(row).masked_fill(row < 0, torch.inf)
        ranked = distance.sort(dim=1, stable=True)
        distance, row = ranked.values[:, :k], row.gather(1, ranked.indices[:, :k])
        lacking = distance[:, -1].isinf()  # the cells that were looked into hold fewer rows
        if lacking.any():
            distance[lacking], row[lacking] = ProductIndex(self._rows).search(queries[lacking], k)
        return distance, row


def _flat(_: int, channels: int) -> Any:
    return faiss.IndexFlatL2(channels)


def _graph(_: int, channels: int) -> Any:
    index = faiss.IndexHNSWFlat(channels, NEIGHBOURS)
    index.hnsw.efConstruction, index.hnsw.efSearch = BUILT_WITH, SEARCHED_WITH
    return index


def _cells(count: int, channels: int) -> Any:
    cells = count // ROWS_PER_CELL
    codes = max(n for n in range(1, max(1, channels // CHANNELS_PER_BYTE) + 1) if channels % n == 0)
    index = faiss.IndexIVFPQ(faiss.IndexFlatL2(channels), channels, cells, codes, 8)
    index.nprobe = max(1, round(cells * CELLS_PROBED))
    return index


@contextmanager
def _one_thread() -> Iterator[None]:
    """While several threads insert rows, the order decides what a graph looks like."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
