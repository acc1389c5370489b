"""GLASS: what a discriminator marks that has learned from weak noise and from painted textures.

A Unified Anomaly Synthesis Strategy with Gradient Ascent for Industrial Anomaly Detection and
Localization. Chen, Luo, Lv, Zhang. ECCV 2024. https://arxiv.org/abs/2407.09359,
code: https://github.com/cqylunlun/GLASS

As in SimpleNet, adapted frozen features with noise count as anomalous; a few steps of gradient
ascent move them to where the discriminator is wrong, but neither too close to the normal feature
nor too far. Textures that shine through random blobs on the support are strong anomalies beside
these weak ones. A position is as anomalous as its logit is high.

Deviations: features are standardised, and lengths counted in that of the noise, where the paper's
numbers suit one backbone; longer and fewer steps of ascent; distances are kept from the feature
itself alone, where the paper chooses by class between that and one centre for all; textures are
drawn, or pieces of the support in disorder, where the paper downloads a dataset (``texture_dir``
takes any); blobs cover the background as well. A set of images is painted once, not anew for each
step. The adapter starts as the identity and learns as fast as the discriminator. The map is of
logits, since chances of 1 tie; a fixed budget, where the released code keeps the best epoch on the
test images. Few images take no fewer made-up anomalies, but at one or two shots what other normal
images have besides has never been called normal and stands out more. ``PAPER`` holds the paper's
settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.colours import from_unit, to_unit
from fewshot_ad.parts.embedding import average_neighbourhood
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.maps import mask_to_grid, to_vectors
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, POSITIVE, Odd, check_parameters
from fewshot_ad.parts.patch_discriminator import PatchDiscriminator
from fewshot_ad.parts.patches import extract_patches, join_levels
from fewshot_ad.parts.standardising import Standardiser
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support
from fewshot_ad.parts.synthesis import Synthetic, blend, perlin_masks
from fewshot_ad.parts.textures import TextureKind, load_textures
from fewshot_ad.parts.training import step_generator

__all__ = ["GLASS"]

PAINTING = -2  # no step of training has this randomness
FINEST = 6
OPACITY, OPACITY_DEVIATION, OPACITY_RANGE = 0.5, 0.1, (0.2, 0.8)
NEAREST, FARTHEST = 0.85, 1.7  # the paper's 0.5 and 1, where noise is some 0.59 long
ASCENTS_UNCHECKED = 5
FOCAL_GAMMA = 2.0
HARD_SHARE = 0.5


@dataclass(kw_only=True, eq=False)
class GLASS(FeatureMethod):
    """Discriminator of noise and textures; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is wide_resnet50_2.
        levels: which feature maps are joined, the first gives the grid.
        neighbourhood: side of the square over which features are averaged.
        textures: ``drawn``, pieces of the ``support``, or either: ``mixed``.
        texture_dir: folder with images that are used as textures instead.
        painted_views: how many images are painted.
        hidden: width of the discriminator.
        noise: deviation of the noise, in deviations of a channel over the support.
        ascent_steps: how often a noisy feature is moved.
        ascent_rate: length of each move, over that of the noise.
        steps: of training.
        vectors_per_step: how many normal positions a step sees, and how many painted ones.
        learning_rate, weight_decay: of Adam.
    """

    track: ClassVar[Track] = "target_tuned"
    recipe: ClassVar[int] = 2
    neighbourhood: int = 3
    textures: TextureKind = "mixed"
    texture_dir: str | None = None
    painted_views: int = 64
    hidden: int = 256
    noise: float = 1.0
    ascent_steps: int = 5
    ascent_rate: float = 0.01
    steps: int = 150
    vectors_per_step: int = 1024
    learning_rate: float = 2e-4
    weight_decay: float = 1e-5
    scale_: Standardiser | None = field(default=None, init=False, repr=False)
    network_: PatchDiscriminator | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "painted_views": 392,
        "hidden": 1024,
        "ascent_steps": 20,
        "ascent_rate": 0.0017,
        "steps": 31_360,  # 640 epochs of 392 images
        "vectors_per_step": 10_368,  # 8 images of 36x36 positions
    }

    def __post_init__(self) -> None:
        check_parameters(
            self,
            neighbourhood=Odd(),
            painted_views=COUNT,
            hidden=COUNT,
            noise=POSITIVE,
            ascent_steps=NOT_NEGATIVE,
            ascent_rate=NOT_NEGATIVE,
        )

    def fit(self, support: Support) -> "GLASS":
        """Learn to tell the patches of the support from noisy and from painted ones.

        Raises:
            FewShotError: the texture folder cannot be used, or the loss is no longer finite; says
                at which step.
        """
        check_support(support, self.min_shots)
        normal = extract_patches(self.features, support.images, self.neighbourhood)
        images, masks = self._paint(support.images)
        painted = torch.cat([self._uncached(image[None]) for image in images])
        grid = painted.shape[-2], painted.shape[-1]
        is_painted = mask_to_grid(masks, grid).flatten().to(painted.device)
        scale = Standardiser(normal)
        network = PatchDiscriminator(normal.shape[1], self.hidden, self.seed).to(normal)
        vectors, others = (to_vectors(scale(maps)) for maps in (normal, painted))
        self._train(network, vectors, others, is_painted)
        self.scale_, self.network_ = scale, network
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Logit of every position."""
        assert self.scale_ is not None
        assert self.network_ is not None
        maps = self.scale_(extract_patches(self.features, image, self.neighbourhood))
        return Judgement([self.network_(to_vectors(maps)).view(1, *maps.shape[-2:])])

    def _uncached(self, image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 c h2 w2"]:
        """Patches of an image that is seen once only."""
        levels = self.features.backbone(image)
        return join_levels([average_neighbourhood(maps, self.neighbourhood) for maps in levels])

    def _paint(self, images: Float[Tensor, "n 3 h w"]) -> Synthetic:
        """Copies of the support under textures, of every image nearly as many."""
        generator = step_generator(self.seed, PAINTING)
        colours = to_unit(images, self.preprocess)
        textures = load_textures(self.textures, colours, self.texture_dir)
        copies = colours[torch.arange(self.painted_views) % len(images)]
        masks = draw_blobs(len(copies), (images.shape[-2], images.shape[-1]), generator)
        opacity = OPACITY + OPACITY_DEVIATION * torch.randn(len(copies), generator=generator)
        shone = textures(len(copies), generator)
        painted = blend(copies, shone, masks.to(copies.device), opacity.clamp(*OPACITY_RANGE))
        return Synthetic(from_unit(painted, self.preprocess), masks)

    def _train(
        self,
        network: PatchDiscriminator,
        normal: Float[Tensor, "n c"],
        painted: Float[Tensor, "m c"],
        is_painted: Bool[Tensor, " m"],
    ) -> None:
        budget = budget_of(self, self.vectors_per_step)

        def loss(rows: Int[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, ""]:
            some = torch.randint(len(painted), (self.vectors_per_step,), generator=generator)
            clean = network.adapter(normal[rows])
            noise = self.noise * torch.randn(clean.shape, generator=generator)
            moved = clean + self._ascended(network, clean.detach(), noise.to(clean))
            logits = network.judge(torch.cat([clean, moved, network.adapter(painted[some])]))
            of_clean, of_moved, of_painted = logits.split([len(rows), len(rows), len(some)])
            local = hard_focal_loss(of_painted, is_painted[some])
            return (
                functional.softplus(of_clean).mean() + functional.softplus(-of_moved).mean() + local
            )

        train_on_support(network, loss, len(normal), budget, "fitting GLASS")

    def _ascended(
        self, network: PatchDiscriminator, clean: Float[Tensor, "k c"], noise: Float[Tensor, "k c"]
    ) -> Float[Tensor, "k c"]:
        """Noise, moved to where the discriminator takes it for normal, within bounds (eq. 5, 7)."""
        length = self.noise * clean.shape[1] ** 0.5  # of noise, as a rule
        network.discriminator.eval()  # ascent shall not stir the batch norm
        for step in range(1, self.ascent_steps + 1):
            noise = noise.requires_grad_()
            wrong = functional.softplus(-network.judge(clean + noise)).sum()
            (slope,) = torch.autograd.grad(wrong, noise)
            move = self.ascent_rate * length * functional.normalize(slope, dim=1)
            noise = noise.detach() + move
            if step % ASCENTS_UNCHECKED == 0 or step == self.ascent_steps:
                noise = bounded(noise, NEAREST * length, FARTHEST * length)
        network.discriminator.train()
        return noise


def draw_blobs(
    count: int, size: tuple[int, int], generator: torch.Generator
) -> Bool[Tensor, "n h w"]:
    """Perlin's blobs: of one drawing, of either of two, or of both."""
    one, other = (perlin_masks(count, size, generator, finest=FINEST) for _ in range(2))
    how = torch.randint(3, (count, 1, 1), generator=generator)
    return torch.where(how == 0, one, torch.where(how == 1, one | other, one & other))


def bounded(shifts: Float[Tensor, "k c"], least: float, most: float) -> Float[Tensor, "k c"]:
    """Shifts in their directions, no shorter and no longer than that."""
    lengths = torch.linalg.vector_norm(shifts, dim=1, keepdim=True)
    return functional.normalize(shifts, dim=1) * lengths.clamp(least, most)


def hard_focal_loss(logits: Float[Tensor, " k"], wanted: Bool[Tensor, " k"]) -> Float[Tensor, ""]:
    """Focal loss of the harder half."""
    surprise = functional.binary_cross_entropy_with_logits(
        logits, wanted.to(logits), reduction="none"
    )
    focal = (1 - (-surprise).exp()) ** FOCAL_GAMMA * surprise
    return focal.topk(max(1, int(HARD_SHARE * len(focal)))).values.mean()
