"""Thinning a memory bank so that it still covers what it covered (PatchCore, section 3.2)."""

import torch
from jaxtyping import Float
from torch import Tensor

PROJECTED_CHANNELS = 128


def greedy_coreset(bank: Float[Tensor, "n c"], size: int, seed: int = 0) -> Float[Tensor, "m c"]:
    """Greedy k-centre: again and again take the row that is farthest from all rows taken so far.

    Distances are taken in a random projection to 128 channels (Johnson-Lindenstrauss), as the paper
    does; the first row is drawn with ``seed``. Costs n * size distances.

    Args:
        bank: rows to choose from.
        size: how many to keep, at least one.
        seed: of the projection and of the first row.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = _project(bank, generator)
    squared = rows.square().sum(dim=1)
    newest = int(torch.randint(len(rows), (1,), generator=generator))
    nearest = torch.full_like(squared, torch.inf)
    chosen = []
    for _ in range(min(max(1, size), len(rows))):
        chosen.append(newest)
        distance = squared - 2 * (rows @ rows[newest]) + squared[newest]
        nearest = torch.minimum(nearest, distance)
        nearest[newest] = -torch.inf  # never twice, even among equal rows
        newest = int(nearest.argmax())
    return bank[torch.tensor(sorted(chosen), device=bank.device)]


def _project(bank: Float[Tensor, "n c"], generator: torch.Generator) -> Float[Tensor, "n d"]:
    if bank.shape[1] <= PROJECTED_CHANNELS:
        return bank
    directions = torch.randn(bank.shape[1], PROJECTED_CHANNELS, generator=generator)
    return bank @ (directions / PROJECTED_CHANNELS**0.5).to(bank.device)
