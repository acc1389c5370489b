"""PyramidFlow: where the latents of an image differ from those of normal images in the mean.

PyramidFlow: High-Resolution Defect Contrastive Localization using Pyramid Normalizing Flow. Lei,
Hu, Wang, Liu. CVPR 2023. https://arxiv.org/abs/2303.02595,
code: https://github.com/gasharper/PyramidFlow

An invertible network on the Laplacian pyramid of an image learns to bring the latents of any two
normal images together. It keeps volume, so that it cannot shrink all to nothing. The mean latent
of the support is the template, and the distance to it is the anomaly of a position.

Parts must lie alike in all images. Deviations. Features of a backbone's first level by default, as
in the paper's pre-trained form; ``backbone=none`` starts from pixels. Features are centred and
scaled on the support. Fixed random rotations in place of learned 1x1 convolutions, and means of the
image itself in place of running ones keep the volume. One depth and one kind of volume for all
classes, where the released code chooses them by class on the test set. Differences are composed
before their size is taken, as in the loss. A single support image is paired with slightly altered
copies of itself. ``PAPER`` holds the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Support, Track
from fewshot_ad.parts.backbones import chosen_device
from fewshot_ad.parts.calibration import altered_copies
from fewshot_ad.parts.feature_cache import FeatureCache, load_features
from fewshot_ad.parts.flows import draw_rotation
from fewshot_ad.parts.level_models import TINY
from fewshot_ad.parts.map_methods import Judgement, MapMethod
from fewshot_ad.parts.parameters import COUNT, Between, Odd, check_parameters
from fewshot_ad.parts.pyramid_couplings import ScaleFlow, Volume, compose, decompose
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support
from fewshot_ad.parts.training import step_generator

__all__ = ["PyramidFlow"]

COPIES = 4
COPIES_GENERATOR = -2  # no step of training has it
PIXEL_CHANNELS = 16


class _Model(NamedTuple):
    """A flow over maps that are centred and scaled, and the mean of its composed latents."""

    mean: Float[Tensor, "1 c 1 1"]
    scale: Float[Tensor, ""]
    flow: ScaleFlow
    scales: int

    def latents(self, maps: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Latents of all scales, composed."""
        return compose(self.flow(decompose((maps - self.mean) / self.scale, self.scales)))


@dataclass(kw_only=True, eq=False)
class PyramidFlow(MapMethod):
    """Distance to a template in the latents of a pyramid; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor, the paper's being a ResNet-18 at
            1024 pixels; None for pixels, mixed to 16 channels at random.
        weights_dir: folder with weights of timm backbones.
        level: feature map that is used.
        scales: of the pyramid.
        flow_blocks: coupling blocks.
        kernel: side of their convolutions.
        volume: what is taken from log-scales, the mean over channels or over positions.
        steps: of training.
        pairs: of images in a step.
        learning_rate, weight_decay: of Adam.
    """

    track: ClassVar[Track] = "target_tuned"
    PAPER: ClassVar[Mapping[str, Any]] = {
        "backbone": None,
        "scales": 8,
        "kernel": 7,
        "steps": 1500,  # 15 epochs of some 200 images in pairs
    }
    backbone: str | None = "tiny"
    weights_dir: str | None = None
    level: int = 1
    scales: int = 4
    flow_blocks: int = 4
    kernel: int = 3
    volume: Volume = "channel"
    steps: int = 60
    pairs: int = 1
    learning_rate: float = 2e-4
    weight_decay: float = 1e-5
    blur: float = 0.0
    model_: _Model | None = field(default=None, init=False, repr=False)
    template_: Float[Tensor, "c h w"] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(
            self,
            level=COUNT,
            scales=Between(2),
            flow_blocks=COUNT,
            kernel=Odd(),
            pairs=COUNT,
        )

    def fit(self, support: Support) -> "PyramidFlow":
        """Train the flow on pairs, and take the template.

        Raises:
            FewShotError: the loss is not finite.
        """
        check_support(support, self.min_shots)
        maps = self._maps(self._paired(support.images))
        model = self._model(maps)
        pairs = torch.combinations(torch.arange(len(maps)))

        def loss(rows: Int[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, ""]:
            one, other = (model.latents(maps[places]) for places in pairs[rows].T)
            return torch.fft.fft2(one - other, norm="ortho").abs().mean()  # section 3.4

        budget = budget_of(self, self.pairs, betas=(0.5, 0.9), eps=1e-4, clip_norm=1.0)
        train_on_support(model.flow, loss, len(pairs), budget, "PyramidFlow")
        shown = [model.latents(each[None]) for each in maps[: len(support.images)]]
        self.model_, self.template_ = model, torch.cat(shown).mean(dim=0)
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Mean difference to the template over the channels.

        Raises:
            FewShotError: the image has another size than the support.
        """
        assert self.model_ is not None
        assert self.template_ is not None
        maps = self._maps(image)
        if maps.shape[1:] != self.template_.shape:
            here, there = (list(each.shape[-2:]) for each in (maps, self.template_))
            raise FewShotError(
                f"images give {here} positions, the support {there}: PyramidFlow needs images of "
                "the size of the support"
            )
        latents = self.model_.latents(maps)
        return Judgement([(latents - self.template_).abs().mean(dim=1)])

    @property
    def weights_digest(self) -> str | None:
        """Digest of the backbone's weights, where there is one."""
        return None if self.backbone is None else self._features(self.backbone).backbone.digest

    def _features(self, backbone: str) -> FeatureCache:
        folder = None if self.weights_dir is None else Path(self.weights_dir)
        return load_features(backbone, (self.level,), weights_dir=folder, device=self.device)

    def _maps(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c h2 w2"]:
        if self.backbone is not None:
            return self._features(self.backbone)(images)[0]
        generator = torch.Generator().manual_seed(self.seed)
        mixing = draw_rotation(PIXEL_CHANNELS, generator)[:, : images.shape[1]]
        device = chosen_device(self.device)
        return functional.conv2d(images.to(device), mixing[..., None, None].to(device))

    def _paired(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "m 3 h w"]:
        """Two images at least, the support first."""
        if len(images) > 1:
            return images
        generator = step_generator(self.seed, COPIES_GENERATOR)
        return torch.cat([images, altered_copies(images, COPIES, generator)])

    def _model(self, maps: Float[Tensor, "n c h w"]) -> _Model:
        mean = maps.mean(dim=(0, 2, 3), keepdim=True)
        scale = (maps - mean).square().mean().sqrt().clamp(min=TINY)
        flow = ScaleFlow(
            maps.shape[1], self.scales, self.flow_blocks, self.kernel, self.volume, self.seed
        ).to(maps.device)
        return _Model(mean, scale, flow, self.scales)
