"""InTra: every patch of an image, painted in from the patches around it.

Inpainting Transformer for Anomaly Detection. Pirnay, Chai. ICIAP 2022.
https://arxiv.org/abs/2104.13897

An image is a grid of patches. A transformer sees a window of them with one patch hidden, and paints
what it should be; so is every patch of the image, and the original is compared with what was
painted by the similarity of gradients on several scales. What is hard to paint in normal images is
no anomaly: the mean map of the support is subtracted before squaring.

There is no official code. Deviations: images of 64 px in patches of 8 and windows of 5 x 5, where
the paper has 256 to 512 px, patches of 16 and windows of 7 x 7; a narrow network of four blocks for
thirteen; copies are moved and turned a little, not flipped or turned by quarters; no epoch is
chosen; a Gaussian in place of a mean filter blurs the map. Weak at few shots by nature: it learns
to paint from nothing, hours long in the paper, and from one or two images it paints those. Nor is
it quick: as many windows as patches go through the network for one image. ``PAPER`` holds the
paper's settings but for its budget, which ends where a held-out loss stops falling.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError, Support
from fewshot_ad.parts.image_losses import dissimilarity, gradient_dissimilarity
from fewshot_ad.parts.image_methods import Colours, ImageMethod
from fewshot_ad.parts.map_methods import Judgement
from fewshot_ad.parts.maps import fuse
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, Between, Odd, check_parameters
from fewshot_ad.parts.seeding import seeded_weights
from fewshot_ad.parts.token_blocks import (
    FeedForward,
    PositionCode,
    PreNormBlock,
    Tokens,
    check_heads,
    to_maps,
    to_tokens,
)

__all__ = ["InTra"]

WINDOWS_AT_ONCE = 64
LEAST_PATCH = 6  # of which the window of SSIM, 11 pixels wide, is less than twice as large


@dataclass(kw_only=True, eq=False)
class InTra(ImageMethod):
    """Patches painted from their surroundings; see the module for the paper.

    Attributes:
        patch: side of a patch in pixels, a divisor of the inner size.
        window: side of a window in patches; odd.
        width: of the tokens.
        heads: of all attentions, which share the width.
        blocks: of the transformer; the first one is added to the last, and so on to the middle.
        hidden_patches: how many patches of an image are hidden per step, one in each window.
        gradient_weight: of the dissimilarity of gradients in the loss.
        structure_weight: of the structural dissimilarity in the loss.
    """

    patch: int = 8
    window: int = 5
    width: int = 64
    heads: int = 4
    blocks: int = 4
    hidden_patches: int = 4
    gradient_weight: float = 0.01
    structure_weight: float = 0.01
    network_: "_Painter | None" = field(default=None, init=False, repr=False)
    usual_: Float[Tensor, "1 s s"] | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "inner_size": 256,
        "patch": 16,
        "window": 7,
        "width": 512,
        "heads": 8,
        "blocks": 13,
        "hidden_patches": 1,
        "batch_size": 256,
        "learning_rate": 1e-4,
    }

    def __post_init__(self) -> None:
        check_parameters(
            self,
            patch=Between(LEAST_PATCH),
            window=Odd(),
            blocks=COUNT,
            hidden_patches=COUNT,
            gradient_weight=NOT_NEGATIVE,
            structure_weight=NOT_NEGATIVE,
            **self.ALLOWED,
        )
        check_heads(self.width, self.heads)
        if self.inner_size % self.patch or self.inner_size < 2 * self.patch:
            raise FewShotError(
                f"inner_size is {self.inner_size} and patch is {self.patch}: expected a multiple, "
                "twice the patch or more"
            )

    def fit(self, support: Support) -> "InTra":
        """Learn to paint patches of the support.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        colours = self.seen(support)
        with seeded_weights(self.seed):
            network = _Painter(self).to(colours)

        def loss(images: Colours, generator: torch.Generator) -> Float[Tensor, ""]:
            draws = torch.rand(len(images), network.n_patches, generator=generator)
            hidden = draws.argsort(dim=1)[:, : self.hidden_patches].to(images.device)
            vectors = to_tokens(functional.pixel_unshuffle(images, self.patch))
            wanted = vectors.gather(1, hidden[..., None].expand(-1, -1, vectors.shape[2]))
            return self._loss(network(vectors, hidden), wanted)

        self.train(network, colours, loss, "InTra")
        self.network_ = network
        with torch.no_grad():
            maps = [self._difference(image[None], network) for image in colours]
        self.usual_ = torch.cat(maps).mean(dim=0, keepdim=True)
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Squared difference to how much normal images differ from what is painted of them."""
        assert self.network_ is not None
        assert self.usual_ is not None
        difference = self._difference(self.colours(image), self.network_)
        return Judgement([(difference - self.usual_).square()])

    def _loss(
        self, painted: Float[Tensor, "b k d"], wanted: Float[Tensor, "b k d"]
    ) -> Float[Tensor, ""]:
        """Squared error, and both dissimilarities, of single patches."""
        shape = (3, self.patch, self.patch)
        pair = painted.flatten(0, 1).unflatten(1, shape), wanted.flatten(0, 1).unflatten(1, shape)
        gradients = gradient_dissimilarity(*pair, scales=1)[0].mean()
        structure = dissimilarity(*pair).mean()
        weighted = self.gradient_weight * gradients + self.structure_weight * structure
        return functional.mse_loss(*pair) + weighted

    def _difference(self, colours: Colours, network: "_Painter") -> Float[Tensor, "1 s s"]:
        """Dissimilarity of gradients of one image and what is painted of it, mean over scales."""
        painted = network.paint(colours)
        size = self.inner_size, self.inner_size
        return fuse(gradient_dissimilarity(painted, colours), size)


class _Painter(nn.Module):
    """Paints hidden patches from windows about them."""

    around: Tensor

    def __init__(self, method: InTra) -> None:
        super().__init__()
        self.patch, side = method.patch, method.inner_size // method.patch
        self.grid, self.n_patches = (side, side), side**2
        dims, width = 3 * method.patch**2, method.width
        self.register_buffer("around", windows(side, method.window))
        self.embed, self.pixels = nn.Linear(dims, width), nn.Linear(width, dims)
        self.position = PositionCode(width, self.grid)
        self.unknown = nn.Parameter(0.02 * torch.randn(width))
        self.blocks = nn.ModuleList(
            PreNormBlock(width, _FeatureAttention(width, method.heads))
            for _ in range(method.blocks)
        )

    def forward(
        self, vectors: Float[Tensor, "b n d"], hidden: Int[Tensor, "b k"]
    ) -> Float[Tensor, "b k d"]:
        """What hidden patches should be.

        Args:
            vectors: colours of all patches.
            hidden: numbers of the patches to paint, each from a window in which it is unseen.
        """
        images = torch.arange(len(vectors), device=vectors.device)[:, None, None]
        members = self.around[hidden]  # [b k window^2]
        is_hidden = (members == hidden[..., None])[..., None]
        seen = torch.where(is_hidden, self.unknown, self.embed(vectors)[images, members])
        tokens = (seen + self.position(self.grid)[0][members]).flatten(0, 1)
        painted = self._attend(tokens)[is_hidden.flatten(0, 1)[..., 0]]
        return self.pixels(painted).unflatten(0, hidden.shape)

    def paint(self, colours: Float[Tensor, "1 3 s s"]) -> Float[Tensor, "1 3 s s"]:
        """An image of which every patch was painted without having been seen."""
        vectors = to_tokens(functional.pixel_unshuffle(colours, self.patch))
        numbers = torch.arange(self.n_patches, device=colours.device)[None]
        parts = [self(vectors, some) for some in numbers.split(WINDOWS_AT_ONCE, dim=1)]
        return functional.pixel_shuffle(to_maps(torch.cat(parts, dim=1), self.grid), self.patch)

    def _attend(self, tokens: Tokens) -> Tokens:
        last, outputs = len(self.blocks) - 1, []
        for number, block in enumerate(self.blocks):
            if 2 * number > last:  # the long way round the middle
                tokens = tokens + outputs[last - number]
            tokens = block(tokens)
            outputs.append(tokens)
        return tokens


class _FeatureAttention(nn.Module):
    """Attention whose queries and keys are found by two layers each, not by one."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.n_heads = heads
        self.query, self.key = FeedForward(width, 1.0), FeedForward(width, 1.0)
        self.value, self.output = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, tokens: Tokens) -> Tokens:
        parts = (layer(tokens) for layer in (self.query, self.key, self.value))
        heads = [part.unflatten(2, (self.n_heads, -1)).transpose(1, 2) for part in parts]
        found = functional.scaled_dot_product_attention(*heads)
        return self.output(found.transpose(1, 2).flatten(2))


def windows(side: int, size: int) -> Int[Tensor, "n m"]:
    """Which patches are in the window of each patch of a square grid.

    The patch is in the middle of its window, or as near to it as the border lets it.

    Args:
        side: of the grid.
        size: side of the windows; one as large as the grid at most.
    """
    size = min(size, side)
    first = (torch.arange(side) - size // 2).clamp(0, side - size)
    members = first[:, None] + torch.arange(size)  # [side size], along one axis
    numbers = members[:, None, :, None] * side + members[None, :, None, :]
    return numbers.flatten(2).flatten(0, 1)
