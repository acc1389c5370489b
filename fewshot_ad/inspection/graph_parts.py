"""Steps that several exported methods share, for any number of images at once.

The methods themselves go image by image, so that an image has the same bits alone and in a batch;
a graph has no such loop, and may be a rounding error away.
"""

from copy import deepcopy
from typing import TypeVar

from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.parts.embedding import Embedding, average_neighbourhood
from fewshot_ad.parts.least_squares import SIDE, LeastSquaresConstraintor
from fewshot_ad.parts.residuals import Metric

PROPOSED = 2  # rows that a product may have in the wrong order

Levels = list[Float[Tensor, "b _ _ _"]]
M = TypeVar("M", bound=nn.Module)


class Distance(nn.Module):
    """Distance of every position to the nearest row of a bank.

    A matrix product finds the row; the distance to it is taken anew, since what a product leaves of
    a small distance between long vectors is mostly rounding.

    Args:
        bank: rows to choose from.
    """

    bank: Tensor
    half_squares: Tensor

    def __init__(self, bank: Float[Tensor, "n c"]) -> None:
        super().__init__()
        rows = bank.detach().float().cpu().clone()
        self.register_buffer("bank", rows)
        self.register_buffer("half_squares", 0.5 * rows.square().sum(dim=1))

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """Distances."""
        rows = maps.permute(0, 2, 3, 1)
        nearest = (self.half_squares - rows @ self.bank.T).argmin(dim=-1)
        return (rows - self.bank[nearest]).square().sum(dim=-1).sqrt()


class Difference(nn.Module):
    """Every position less the nearest row of a bank.

    Two rows may be nearly as near and lie on opposite sides. So a product proposes two, and their
    differences decide, as they do in ``parts.products``.

    Args:
        bank: rows to choose from.
        metric: of the choice.
    """

    bank: Tensor
    keys: Tensor
    half_squares: Tensor

    def __init__(self, bank: Float[Tensor, "n c"], metric: Metric) -> None:
        super().__init__()
        self.is_cosine = metric == "cosine"
        rows = bank.detach().float().cpu().clone()
        keys = functional.normalize(rows, dim=1) if self.is_cosine else rows
        self.proposed = min(PROPOSED, len(rows))
        self.register_buffer("bank", rows)
        self.register_buffer("keys", keys)
        self.register_buffer("half_squares", 0.5 * keys.square().sum(dim=1))

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Residuals."""
        rows = maps.permute(0, 2, 3, 1)
        asked = functional.normalize(rows, dim=-1) if self.is_cosine else rows
        far = self.half_squares - asked @ self.keys.T
        proposed = far.topk(self.proposed, dim=-1, largest=False).indices
        exact = (asked[:, :, :, None] - self.keys[proposed]).square().sum(dim=-1)
        nearest = proposed.gather(-1, exact.argmin(dim=-1, keepdim=True))[:, :, :, 0]
        return (rows - self.bank[nearest]).permute(0, 3, 1, 2)


class Embedded(nn.Module):
    """What ``parts.embedding`` does to the features of every level.

    Args:
        embedding: how.
        channels: of every level, before.
    """

    def __init__(self, embedding: Embedding, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.side, self.unit_length = embedding.neighbourhood, embedding.unit_length
        self.mixed = nn.ModuleList(
            Mixed(embedding.projection(number, width)) for number, width in enumerate(channels)
        )

    def forward(self, levels: Levels) -> Levels:
        """Embedded levels."""
        averaged = [average_neighbourhood(maps, self.side) for maps in levels]
        narrowed = [mix(maps) for mix, maps in zip(self.mixed, averaged, strict=True)]
        return (
            [functional.normalize(maps, dim=1) for maps in narrowed]
            if self.unit_length
            else narrowed
        )


class Mixed(nn.Module):
    """Channels, mixed at every position alike.

    Args:
        rows: of the matrix; None to leave them as they are.
    """

    rows: Tensor | None

    def __init__(self, rows: Float[Tensor, "d c"] | None) -> None:
        super().__init__()
        self.register_buffer("rows", None if rows is None else rows[:, :, None, None].clone())

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Mixed channels."""
        return maps if self.rows is None else functional.conv2d(maps, self.rows)


class Chosen(nn.Module):
    """Some of the channels.

    Args:
        kept: which, rising.
    """

    kept: Tensor

    def __init__(self, kept: Int[Tensor, " d"]) -> None:
        super().__init__()
        self.register_buffer("kept", kept)

    def forward(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """These channels."""
        return maps[:, self.kept]


class Filter(nn.Module):
    """A solved constraintor, on all images at once."""

    kernel: Tensor

    def __init__(self, solved: LeastSquaresConstraintor) -> None:
        super().__init__()
        self.register_buffer("kernel", solved.kernel.detach().cpu().clone())

    def forward(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Constrained residuals."""
        return functional.conv2d(residuals, self.kernel, padding=SIDE // 2)


def copied(module: M, *shared: object) -> M:
    """A copy on the CPU that learns nothing; what it refers to of ``shared`` is not copied."""
    fresh = deepcopy(module, {id(one): one for one in shared})
    return fresh.eval().requires_grad_(requires_grad=False).cpu()
