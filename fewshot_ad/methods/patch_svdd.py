"""Patch-SVDD: the nearest normal patch, in codes that are learned from the support alone.

Patch SVDD: Patch-level SVDD for Anomaly Detection and Segmentation. Yi, Yoon. ACCV 2020.
https://arxiv.org/abs/2006.16067

An encoder is trained without any other data: patches side by side shall have like codes, and the
difference of two codes shall tell on which of eight sides the second patch lies. Patches of 32 and
of 64 pixels are compared with those of the support. A pixel is as anomalous as the patches that
show it are far from all normal ones, at both sizes.

Deviations: a whole image is encoded at once, so that pairs of patches stand on a grid of 4 pixels,
which a step shifts at random; that is ten times quicker than patch by patch. The jitter that keeps
the network from reading positions off colour fringes is left out. A higher learning rate and far
fewer steps; the paper's weight of the losses is chosen for each class, ours is the common one of
the released code. Search is exact. One image has thousands of patches and is enough; on even
textures positions cannot be told, and training can do harm there. ``PAPER`` holds the paper's
settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError, Support, Track
from fewshot_ad.parts.backbones import chosen_device
from fewshot_ad.parts.map_methods import Judgement, MapMethod
from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, check_parameters
from fewshot_ad.parts.patch_encoder import (
    DIRECTIONS,
    SIDES,
    STRIDE,
    PatchEncoder,
    PositionClassifier,
    draw_pairs,
    spread,
)
from fewshot_ad.parts.search import Engine, nearest
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support

__all__ = ["PatchSVDD"]

THIN = (1, 4)  # small patches are compared every 4 pixels, large ones every 16


@dataclass(kw_only=True, eq=False)
class PatchSVDD(MapMethod):
    """Nearest patch by learned codes; see the module for the paper.

    Attributes:
        dims: of a code.
        width: channels of the encoder's first layer, a quarter of its widest.
        svdd_weight: of the loss of patches side by side, over that of positions (lambda); much more
            than the default makes all codes alike, and the search slow.
        steps: of training.
        batch_size: images per step at most.
        pairs_per_step: pairs of patches of either size, for either loss.
        learning_rate: of Adam.
        engine: how the support is searched, see ``parts.search``.
    """

    track: ClassVar[Track] = "target_tuned"
    dims: int = 64
    width: int = 32
    svdd_weight: float = 1e-3
    steps: int = 100
    batch_size: int = 2
    pairs_per_step: int = 256
    learning_rate: float = 1e-3
    blur: float = 0.0
    engine: Engine = "product"
    encoder_: PatchEncoder | None = field(default=None, init=False, repr=False)
    banks_: list[Float[Tensor, "_ d"]] | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "steps": 300_000,  # 300 epochs, 100 times some 10 batches
        "pairs_per_step": 64,
        "learning_rate": 1e-4,
    }

    def __post_init__(self) -> None:
        check_parameters(self, dims=COUNT, svdd_weight=NOT_NEGATIVE)

    def fit(self, support: Support) -> "PatchSVDD":
        """Learn the codes, and keep those of the support.

        Raises:
            FewShotError: images are smaller than a patch, or the loss is no longer finite.
        """
        check_support(support, self.min_shots)
        images = support.images.to(chosen_device(self.device))
        _check_size(images)
        encoder = PatchEncoder(self.dims, self.width, self.seed).to(images)
        self._train(encoder, images)
        codes = zip(*(self._codes(encoder, image[None]) for image in images), strict=True)
        self.banks_ = [to_vectors(torch.cat(maps)) for maps in codes]
        self.encoder_ = encoder
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Distance to the nearest normal patch, the product of both sizes."""
        assert self.encoder_ is not None
        assert self.banks_ is not None
        _check_size(image)
        image = image.to(self.banks_[0])
        size, product = (image.shape[-2], image.shape[-1]), torch.ones(())
        sizes = zip(self._codes(self.encoder_, image), self.banks_, SIDES, THIN, strict=True)
        for maps, bank, side, thin in sizes:
            distance, _ = nearest(to_vectors(maps), bank, engine=self.engine)
            values = distance.view(maps.shape[-2:])
            product = product.to(values) * spread(values, side, STRIDE * thin, size)
        return Judgement([product[None]])

    @torch.no_grad()
    def _codes(
        self, encoder: PatchEncoder, image: Float[Tensor, "1 3 h w"]
    ) -> list[Float[Tensor, "1 d _ _"]]:
        return [maps[..., ::t, ::t] for maps, t in zip(encoder(image), THIN, strict=True)]

    def _train(self, encoder: PatchEncoder, images: Float[Tensor, "n 3 h w"]) -> None:
        budget = budget_of(self, self.batch_size)
        classifiers = [PositionClassifier(self.dims, self.seed + side) for side in SIDES]
        network = nn.ModuleList([encoder, *classifiers]).to(images.device)

        def loss(rows: Int[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, ""]:
            seen = _shifted(images[rows.to(images.device)], generator)
            each = zip(encoder(seen), classifiers, SIDES, strict=True)
            return torch.stack([self._loss(*one, generator) for one in each]).sum()

        train_on_support(network, loss, len(images), budget, "learning patches")

    def _loss(
        self,
        codes: Float[Tensor, "b d h w"],
        classifier: PositionClassifier,
        side: int,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Of one size of patches (eq. 4)."""
        near = _jitter(self.pairs_per_step, side // 32, generator)
        here, there = draw_pairs(codes, near, generator)
        alike = torch.linalg.vector_norm(here - there, dim=1).mean()  # eq. 2
        reach = 3 * side // (4 * STRIDE)
        if min(codes.shape[2:]) <= reach:  # no room for two patches side by side
            return self.svdd_weight * alike
        sides = torch.randint(len(DIRECTIONS), (self.pairs_per_step,), generator=generator)
        jitter = _jitter(self.pairs_per_step, side // (4 * STRIDE), generator)
        here, there = draw_pairs(codes, torch.tensor(DIRECTIONS)[sides] * reach + jitter, generator)
        where = functional.cross_entropy(classifier(here - there), sides.to(codes.device))  # eq. 3
        return where + self.svdd_weight * alike


def _jitter(count: int, most: int, generator: torch.Generator) -> Int[Tensor, "k 2"]:
    return torch.randint(-most, most + 1, (count, 2), generator=generator)


def _shifted(
    images: Float[Tensor, "b 3 h w"], generator: torch.Generator
) -> Float[Tensor, "b 3 h2 w2"]:
    """Without some of the first rows and columns, so that patches stand anywhere."""
    room = [min(STRIDE, side - max(SIDES) + 1) for side in images.shape[2:]]
    top, left = (int(torch.randint(most, (), generator=generator)) for most in room)
    return images[..., top:, left:]


def _check_size(images: Float[Tensor, "b 3 h w"]) -> None:
    height, width = images.shape[2:]
    if min(height, width) < max(SIDES):
        raise FewShotError(
            f"images of {width}x{height} pixels are smaller than a patch of {max(SIDES)}: ask for "
            f"larger ones"
        )
