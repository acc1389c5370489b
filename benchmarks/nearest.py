"""Nearest neighbours: share of the machine's matrix-product peak, and who gives the same answers.

    python benchmarks/nearest.py                         # queries 784, bank 12,544, 1024 channels
    python benchmarks/nearest.py --queries 3136 --bank 50176
    python benchmarks/nearest.py --approximate           # graphs and cells too: minutes to build

The rows are rectified mixtures of a few directions in clusters, as features are. Building an index
counts as its own column: a bank is asked by many images.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from measuring import in_turns, peak_gflops, table, taken
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from fewshot_ad.parts.faiss_indices import FaissIndex
from fewshot_ad.parts.products import ProductIndex

DIRECTIONS, CLUSTERS = 48, 64
BLOCK = 1024


@dataclass(frozen=True)
class Contestant:
    """A prepared bank: who searches it, and what the preparation took."""

    name: str
    build_seconds: float
    search: Callable[[Tensor], Tensor]


def draw_rows(count: int, channels: int, seed: int) -> Tensor:
    """Rows that resemble features of a network."""
    shared = torch.Generator().manual_seed(0)
    own = torch.Generator().manual_seed(seed)
    centres = torch.randn(CLUSTERS, DIRECTIONS, generator=shared)
    mixing = torch.randn(DIRECTIONS, channels, generator=shared)
    which = torch.randint(CLUSTERS, (count,), generator=own)
    latent = centres[which] + 0.5 * torch.randn(count, DIRECTIONS, generator=own)
    noise = 0.3 * torch.randn(count, channels, generator=own)
    return (latent @ mixing / DIRECTIONS**0.5 + noise).relu()


def cdist(bank: Tensor, queries: Tensor) -> Tensor:
    """What torch offers, in its matrix form, in blocks."""
    mode = "use_mm_for_euclid_dist"
    blocks = queries.split(BLOCK)
    return torch.cat([torch.cdist(block, bank, compute_mode=mode).argmin(1) for block in blocks])


def contestants(bank: Tensor, approximate: bool) -> list[Contestant]:
    """Everyone with the bank made ready; the first is the yardstick of answers."""
    kinds = ["faiss_flat", *(["faiss_hnsw", "faiss_ivf_pq"] if approximate else [])]
    makers: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
        "ours, float32 product": lambda: _ours(ProductIndex(bank, coarse=False)),
        "ours, bfloat16 proposes": lambda: _ours(ProductIndex(bank, coarse=True)),
        **{f"{kind} through us": lambda kind=kind: _ours(FaissIndex(bank, kind)) for kind in kinds},
        "FAISS flat alone": lambda: _faiss(bank),
        "torch.cdist": lambda: lambda queries: cdist(bank, queries),
        "scikit-learn brute": lambda: _sklearn(bank),
    }
    found: list[Contestant] = []
    for name, make in makers.items():
        ready: list[Callable[[Tensor], Tensor]] = []
        seconds = taken(lambda make=make, ready=ready: ready.append(make()))
        found.append(Contestant(name, seconds, ready[0]))
    return found


def _ours(index: ProductIndex | FaissIndex) -> Callable[[Tensor], Tensor]:
    return lambda queries: index.search(queries, 1)[1][:, 0]


def _faiss(bank: Tensor) -> Callable[[Tensor], Tensor]:
    import faiss

    index = faiss.IndexFlatL2(bank.shape[1])
    index.add(bank.numpy())
    return lambda queries: torch.from_numpy(index.search(queries.numpy(), 1)[1][:, 0])


def _sklearn(bank: Tensor) -> Callable[[Tensor], Tensor]:
    model = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(bank.numpy())
    return lambda queries: torch.from_numpy(
        np.asarray(model.kneighbors(queries.numpy(), return_distance=False))[:, 0]
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="nearest neighbours against their peers")
    parser.add_argument("--queries", type=int, default=784)
    parser.add_argument("--bank", type=int, default=12544)
    parser.add_argument("--channels", type=int, nargs="+", default=[1024])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--approximate", action="store_true")
    options = parser.parse_args()
    peaks = [peak_gflops(dtype) for dtype in (torch.float32, torch.bfloat16)]
    print(
        f"A square product reaches {peaks[0]:.0f} GFLOP/s in float32, {peaks[1]:.0f} in bfloat16."
    )
    for channels in options.channels:
        bank, queries = (
            draw_rows(count, channels, seed)
            for seed, count in enumerate((options.bank, options.queries), start=1)
        )
        everyone = contestants(bank, options.approximate)
        seconds = in_turns([lambda c=c, q=queries: c.search(q) for c in everyone], options.repeats)
        expected = everyone[0].search(queries)
        print(f"\n{options.queries} queries, bank {options.bank} x {channels}\n")
        print(
            table(
                ("", "s", "GFLOP/s", "of the float32 peak", "build s", "same answer"),
                [
                    (
                        one.name,
                        f"{each:.3f}",
                        f"{(rate := 2e-9 * bank.numel() * len(queries) / each):.0f}",
                        f"{rate / peaks[0]:.0%}",
                        f"{one.build_seconds:.2f}",
                        f"{(one.search(queries) == expected).double().mean():.2%}",
                    )
                    for one, each in zip(everyone, seconds, strict=True)
                ],
            )
        )
        flat = seconds[[one.name for one in everyone].index("FAISS flat alone")]
        print(f"\nFAISS flat takes {flat / seconds[1]:.2f} times as long as ours.")


if __name__ == "__main__":
    main()
