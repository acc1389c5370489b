"""Masked autoencoders: how badly a network redraws an image of which it sees a part.

The masks are those of the caller. Images go through the network one at a time, their masks as the
batch, so an image gets the same bits alone and in any batch; few masks at once bound the memory.
"""

import hashlib
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_ad.api import FewShotError
from fewshot_ad.parts.backbones import chosen_device, digest_of
from fewshot_ad.parts.mae_weights import build_network
from fewshot_ad.parts.weight_files import weight_folders

MASKS_AT_ONCE, ACCELERATOR_MASKS_AT_ONCE = 8, 32
QUARTERS = 4


@dataclass(frozen=True, eq=False)
class MaskedAutoencoder:
    """A network that redraws masked images; patches are counted along rows.

    Attributes:
        size: side of the images, in pixels.
        digest: of the weights as they were loaded.
    """

    name: str
    size: int
    digest: str
    device: str
    network: nn.Module = field(repr=False)

    @property
    def config(self) -> Any:
        """The configuration of transformers."""
        return self.network.config

    @property
    def n_patches(self) -> int:
        """Patches of an image."""
        return (self.size // self.config.patch_size) ** 2

    @property
    def n_visible(self) -> int:
        """Patches that the network sees, counted as transformers does."""
        return int(self.n_patches * (1 - self.config.mask_ratio))

    def copy(self, **settings: Any) -> "MaskedAutoencoder":
        """One with modules and a configuration of its own, and the same weights in memory."""
        weights = [*self.network.parameters(), *self.network.buffers()]
        network = deepcopy(self.network, {id(each): each for each in weights})
        for name, value in settings.items():
            setattr(network.config, name, value)
        return MaskedAutoencoder(self.name, self.size, self.digest, self.device, network)

    def redraw(
        self, images: Float[Tensor, "b 3 h w"], noise: Float[Tensor, "b l"]
    ) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b l"]]:
        """The pixels of all patches as the network draws them, and 1 for every masked patch.

        Args:
            images: normalised.
            noise: the patches with the least noise of an image are seen.
        """
        found = self.network(images.to(self.device), noise=noise.to(self.device))
        return found.logits, found.mask

    def loss(
        self, images: Float[Tensor, "b 3 h w"], noise: Float[Tensor, "b l"]
    ) -> Float[Tensor, ""]:
        """The loss the network was trained with: mean squared error of the masked patches."""
        return self.network(images.to(self.device), noise=noise.to(self.device)).loss

    @torch.no_grad()
    def error_map(
        self,
        image: Float[Tensor, "1 3 h w"],
        noise: Float[Tensor, "n l"],
        masked_only: bool = False,
    ) -> Float[Tensor, "1 h w"]:
        """Squared error, summed over the channels of a pixel, mean over the masks.

        A network that was trained on patches of mean 0 and variance 1 draws no colours; its error
        is taken on such patches, one value for all pixels of a patch.

        Args:
            image: normalised.
            noise: of every mask.
            masked_only: average over the masks that hide a pixel; one that is never hidden gets 0.
        """
        target = self._target(image.to(self.device))
        total, count = torch.zeros_like(target[0, :, :, 0]), torch.zeros_like(target[0, :, :1, 0])
        for part in noise.split(self._masks_at_once):
            drawn, mask = self.redraw(image.expand(len(part), -1, -1, -1), part)
            weight = (mask if masked_only else torch.ones_like(mask))[:, :, None]
            error = (drawn.float().unflatten(2, (-1, 3)) - target).square().sum(dim=3)
            total, count = total + (error * weight).sum(dim=0), count + weight.sum(dim=0)
        error = total / count.clamp(min=1)
        if self.config.norm_pix_loss:
            error = error.mean(dim=1, keepdim=True).expand_as(error)
        return self._assembled(error)

    @property
    def _masks_at_once(self) -> int:
        return MASKS_AT_ONCE if self.device == "cpu" else ACCELERATOR_MASKS_AT_ONCE

    def _target(self, image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 l pp 3"]:
        """The pixels of every patch, as the network was trained to draw them."""
        patch = self.config.patch_size
        cut = image.unfold(2, patch, patch).unfold(3, patch, patch)
        target = cut.permute(0, 2, 3, 4, 5, 1).flatten(1, 2).flatten(2, 3)
        if not self.config.norm_pix_loss:
            return target
        flat = target.flatten(2)
        variance, mean = torch.var_mean(flat, dim=2, keepdim=True)
        return ((flat - mean) / (variance + 1e-6).sqrt()).view_as(target)

    def _assembled(self, values: Float[Tensor, "l pp"]) -> Float[Tensor, "1 h w"]:
        patch = self.config.patch_size
        side = self.size // patch
        square = values.view(side, side, patch, patch).transpose(1, 2)
        return square.reshape(1, self.size, self.size)


def load_autoencoder(
    name: str,
    *,
    size: int = 224,
    mask_ratio: float = 0.75,
    norm_pix: bool | None = None,
    weights_dir: Path | None = None,
    device: str = "cpu",
) -> MaskedAutoencoder:
    """A frozen masked autoencoder; its weights are read once per process.

    Args:
        name: see the table in ``parts.mae_weights``.
        size: side of the images, in pixels.
        mask_ratio: share of the patches that is hidden.
        norm_pix: whether the network was trained on standardised patches; None asks its
            configuration.
        weights_dir: searched for weights first.
        device: where it runs; ``auto`` is the GPU where there is one.

    Raises:
        FewShotError: see ``parts.mae_weights.build_network``; or no patch is left visible.
    """
    with _loading:
        folders = tuple(weight_folders(weights_dir))
        loaded = _load_once(name, size, weights_dir, chosen_device(device), folders)
    settings: dict[str, Any] = {} if norm_pix is None else {"norm_pix_loss": norm_pix}
    found = loaded.copy(mask_ratio=mask_ratio, **settings)
    if not found.n_visible:
        raise FewShotError(
            f"mask_ratio {mask_ratio} leaves none of {found.n_patches} patches visible: choose a "
            "smaller one"
        )
    return found


def random_noise(count: int, n_patches: int, generator: torch.Generator) -> Float[Tensor, "n l"]:
    """Noise of ``count`` independent masks: a random order of the patches each, free of ties."""
    orders = [torch.randperm(n_patches, generator=generator) for _ in range(count)]
    return torch.stack(orders) / n_patches


def quartered_noise(count: int, n_patches: int, generator: torch.Generator) -> Float[Tensor, "n l"]:
    """Noise of masks in fours: within four, every patch is among the least noisy quarter once.

    Raises:
        FewShotError: the patches cannot be cut in four.
    """
    if n_patches % QUARTERS:
        raise FewShotError(
            f"{n_patches} patches cannot be cut into four equal parts: set quartered=false or "
            "another preprocess.size"
        )
    orders = [torch.randperm(n_patches, generator=generator) for _ in range(count // QUARTERS)]
    turns = [turn * n_patches // QUARTERS for turn in range(QUARTERS)]
    turned = [(order + turn) % n_patches for order in orders for turn in turns]
    return torch.stack(turned) / n_patches


def content_generator(image: Float[Tensor, "1 3 h w"], seed: int) -> torch.Generator:
    """Randomness that hangs on an image and a seed alone, not on what was judged before it."""
    content = image.detach().cpu().contiguous().numpy()
    digest = hashlib.blake2b(np.int64(seed).tobytes() + content.tobytes(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


_loading = Lock()


@cache
def _load_once(
    name: str,
    size: int,
    weights_dir: Path | None,
    device: str,
    folders: tuple[Path, ...],
) -> MaskedAutoencoder:
    """``folders`` only tells calls apart: the environment may name another one by the next."""
    network = build_network(name, size, weights_dir)
    digest = digest_of(network)
    return MaskedAutoencoder(name, size, digest, device, network.to(device))
