"""Windows of a vision transformer: many short sequences of tokens in place of many crops.

WinCLIP, section 4.1 (https://arxiv.org/abs/2303.14814). A window is a square of patches. Its
embedding is what the tower makes of the class token and the patches inside alone: the others are
dropped before the first block, position embeddings stay those of the whole image. Patches are
embedded once, and all windows of one scale and of several images go through the blocks together.

    >>> tower = WindowTower(clip.network.visual)            # images -> maps, frozen
    >>> image, small, middle, patches = tower(images)       # [b d 1 1] [b d 14 14] [b d 13 13] ...
    >>> window_map([small, middle], (2, 3), prototypes)     # [b 15 15], text enters here only

Embeddings do not hang on text: keep them, and another prompt costs a product of matrices.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.residuals import shared_matcher

WindowPool = Literal["class_token", "patches"]

TOKENS_AT_ONCE = 2**14
PLAIN_BLOCK = "ResidualAttentionBlock"  # by name: importing open_clip takes seconds
LEAST = 1e-6  # of a probability whose inverse is taken


def window_index(grid: tuple[int, int], side: int) -> Int[Tensor, "n k"]:
    """The patches of every window of ``side`` x ``side``, stride 1, counted row by row.

    Raises:
        FewShotError: the window is larger than the grid.
    """
    if side > min(grid):
        raise FewShotError(
            f"the image has {grid[0]}x{grid[1]} patches: too small for windows of {side}x{side}"
        )
    patches = torch.arange(grid[0] * grid[1]).view(grid)
    return patches.unfold(0, side, 1).unfold(1, side, 1).flatten(2).flatten(0, 1)


class WindowTower(nn.Module):
    """Image, window and patch embeddings of an open_clip vision transformer.

    Args:
        visual: ``open_clip.transformer.VisionTransformer``.
        sides: of the windows, in patches.
        pool: what stands for a window: its class token, or the mean of its patches.
        patch_block: the block whose output patches are, negative from the end.
        normed_patches: put the last layer norm over them; the reimplementations do not.
    """

    def __init__(
        self,
        visual: nn.Module,
        sides: tuple[int, ...] = (2, 3),
        pool: WindowPool = "class_token",
        patch_block: int = -1,
        normed_patches: bool = False,
    ) -> None:
        super().__init__()
        self.visual: Any = visual
        self.sides, self.pool = sides, pool
        self.patch_block, self.normed_patches = patch_block, normed_patches
        self.grid: tuple[int, int] = self.visual.grid_size
        blocks = len(self.visual.transformer.resblocks)
        if not -blocks <= patch_block < blocks:
            raise FewShotError(
                f"patch_block is {patch_block}: expected {-blocks} to {blocks - 1}, the blocks of "
                "the tower"
            )
        self.layouts = [window_index(self.grid, side) for side in sides]

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b d h2 w2"]]:
        """The whole image [b d 1 1], windows [b d rows columns] per side, patches [b c rows cols].

        None of them is brought to unit length.
        """
        tokens = self.embed(images)
        image, patches = self.whole(tokens)
        rows = [self.grid[0] - side + 1 for side in self.sides]
        windows = [self.windows(tokens, layout) for layout in self.layouts]
        maps = [each.mT.unflatten(2, (n, -1)) for each, n in zip(windows, rows, strict=True)]
        return [image[:, :, None, None], *maps, patches.mT.unflatten(2, self.grid)]

    def embed(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n c"]:
        """Class token and patches with the positions of the whole image, ready for the blocks."""
        visual = self.visual
        patches = visual.conv1(images).flatten(2).mT
        first = visual.class_embedding.expand(len(images), 1, -1)
        return visual.ln_pre(torch.cat([first, patches], dim=1) + visual.positional_embedding)

    def whole(
        self, tokens: Float[Tensor, "b n c"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b n2 c"]]:
        """Image embedding as ``encode_image`` gives it, and the patches for references."""
        blocks = self.visual.transformer.resblocks
        kept = range(len(blocks))[self.patch_block]
        patches = tokens
        for number, block in enumerate(blocks):
            tokens = self.run_block(block, tokens)
            patches = tokens if number == kept else patches
        patches = self.visual.ln_post(patches) if self.normed_patches else patches
        return self.project(tokens, self.visual.pool_type == "avg"), patches[:, 1:]

    def windows(
        self, tokens: Float[Tensor, "b n c"], layout: Int[Tensor, "m k"]
    ) -> Float[Tensor, "b m d"]:
        """Embeddings of the windows of all images, a bounded number of tokens at a time."""
        images, (count, size) = len(tokens), layout.shape
        first = torch.zeros(count, 1, dtype=layout.dtype)
        index = torch.cat([first, layout + 1], dim=1).to(tokens.device)
        offset = tokens.shape[1] * torch.arange(images, device=tokens.device)
        rows = (offset[:, None, None] + index).flatten(0, 1)
        flat = tokens.flatten(0, 1)
        at_once = max(1, TOKENS_AT_ONCE // (size + 1))
        found = [self.sequences(flat[block]) for block in rows.split(at_once)]
        return torch.cat(found).unflatten(0, (images, count))

    def sequences(self, tokens: Float[Tensor, "s n c"]) -> Float[Tensor, "s d"]:
        """One embedding per sequence, each of them what the tower makes of that sequence alone."""
        *blocks, last = self.visual.transformer.resblocks
        for block in blocks:
            tokens = self.run_block(block, tokens)
        if self.pool == "class_token":
            return self.project(self.run_block(last, tokens, only_class=True), over_patches=False)
        return self.project(self.run_block(last, tokens), over_patches=True)

    def run_block(
        self, block: Any, tokens: Float[Tensor, "s n c"], only_class: bool = False
    ) -> Float[Tensor, "s n2 c"]:
        """One block of the model; sequences come first here, whichever way round the block is.

        With ``only_class`` nothing is computed but what becomes of the class token.
        """
        run = _class_token if only_class and type(block).__name__ == PLAIN_BLOCK else _all_tokens
        if getattr(block.attn, "batch_first", True):
            return run(block, tokens, 1)
        return run(block, tokens.transpose(0, 1).contiguous(), 0).transpose(0, 1)

    def project(self, tokens: Float[Tensor, "s n c"], over_patches: bool) -> Float[Tensor, "s d"]:
        """Last norm, pooling and projection into the space of the text."""
        visual = self.visual
        if visual.final_ln_after_pool:
            return visual.ln_post(_pooled(tokens, over_patches)) @ visual.proj
        return _pooled(visual.ln_post(tokens), over_patches) @ visual.proj


def anomaly_probability(
    embeddings: Float[Tensor, "b d h w"], prototypes: Float[Tensor, "2 d"], temperature: float
) -> Float[Tensor, "b h w"]:
    """Softmax over the cosines with (normal, anomalous), the anomalous entry (equation 1)."""
    cosines = torch.einsum(
        "bdhw,cd->bchw",
        functional.normalize(embeddings, dim=1),
        functional.normalize(prototypes, dim=1),
    )
    return torch.sigmoid((cosines[:, 1] - cosines[:, 0]) / temperature)


def pool_windows(scores: Float[Tensor, "b h w"], side: int) -> Float[Tensor, "b h2 w2"]:
    """Per patch, the harmonic mean of the scores of all windows that hold it (equation 4)."""
    inverse = 1 / scores[:, None].clamp(min=LEAST)
    around = (side - 1,) * 4
    sums, counts = (
        functional.avg_pool2d(functional.pad(values, around), side, stride=1)[:, 0]
        for values in (inverse, torch.ones_like(inverse))
    )
    return counts / sums


def harmonic_mean(maps: Sequence[Float[Tensor, "b h w"]]) -> Float[Tensor, "b h w"]:
    """Harmonic mean over maps of one size, position by position."""
    return len(maps) / torch.stack([1 / each.clamp(min=LEAST) for each in maps]).sum(dim=0)


def window_map(
    embeddings: Sequence[Float[Tensor, "b d _ _"]],
    sides: Sequence[int],
    prototypes: Float[Tensor, "2 d"],
    temperature: float = 0.07,
    image_probability: Float[Tensor, " b"] | None = None,
) -> Float[Tensor, "b h w"]:
    """Zero-shot map on the grid of patches: harmonic within scales, then across (equation 5).

    Args:
        embeddings: of the windows, per side.
        sides: of the windows, in patches.
        prototypes: text embeddings, normal before anomalous.
        temperature: of the softmax.
        image_probability: the score of the whole image, as one scale more; None leaves it out.
    """
    pairs = zip(embeddings, sides, strict=True)
    maps = [
        pool_windows(anomaly_probability(maps, prototypes, temperature), side)
        for maps, side in pairs
    ]
    if image_probability is not None:
        maps.append(image_probability[:, None, None].expand_as(maps[0]))
    return harmonic_mean(maps)


def reference_map(
    embeddings: Sequence[Float[Tensor, "b _ _ _"]],
    references: Sequence[Float[Tensor, "n _ _ _"]],
    sides: Sequence[int],
) -> Float[Tensor, "b h w"]:
    """How far everything is from the nearest reference embedding, in [0, 1] (WinCLIP+, section 5).

    The distance is (1 - cosine) / 2 to the nearest position of any reference; windows become
    patches by harmonic means, scales are averaged.

    Args:
        embeddings: of the images, per scale.
        references: of the support, likewise.
        sides: of the windows of each scale; 1 for patches.
    """
    maps = []
    for queries, bank, side in zip(embeddings, references, sides, strict=True):
        distance, _ = shared_matcher(queries, bank, "cosine")
        maps.append(pool_windows(distance / 2, side))
    return torch.stack(maps).mean(dim=0)


def _all_tokens(block: Any, tokens: Tensor, _: int) -> Tensor:
    return block(tokens)


def _class_token(block: Any, tokens: Tensor, axis: int) -> Tensor:
    """The block's own layers in its own order, with the class token as the only query."""
    normed = block.ln_1(tokens)
    attended = block.attention(normed.narrow(axis, 0, 1), normed, normed)
    first = tokens.narrow(axis, 0, 1) + block.ls_1(attended)
    return first + block.ls_2(block.mlp(block.ln_2(first)))


def _pooled(tokens: Float[Tensor, "s n c"], over_patches: bool) -> Float[Tensor, "s c"]:
    return tokens[:, 1:].mean(dim=1) if over_patches else tokens[:, 0]
