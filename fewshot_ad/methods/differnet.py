"""DifferNet: the likelihood of an image as a whole, in many rotations.

Same Same But DifferNet: Semi-Supervised Defect Detection with Normalizing Flows. Rudolph, Wandt,
Rosenhahn. WACV 2021. https://arxiv.org/abs/2008.12577,
code: https://github.com/marco-rudolph/differnet

Features of an image at three scales are averaged over all positions and joined to one vector. A
flow learns the likelihood of such vectors from rotated support images. The score is the mean
squared length of the latents over rotated views of the query.

Made for image scores; the map is weak. Deviations. The paper's map is the gradient of the score
with respect to the pixels; here the gradient is taken at the averaged features, and a position has
the part of the score that its features account for to first order, so that any backbone serves,
differentiable or not. Any backbone in place of AlexNet, features centred and scaled on the support.
Couplings move one half of the channels each and rotate, where the paper's move both and permute. A
fixed number of rotated views is learned from, whatever the number of support images. Where parts
have an orientation, choose a smaller ``rotation``. ``PAPER`` holds the paper's settings.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, Support, Track
from fewshot_ad.parts.flows import ConditionalFlow, log_likelihood
from fewshot_ad.parts.level_models import TINY
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.maps import fuse
from fewshot_ad.parts.parameters import COUNT, POSITIVE, Between, check_parameters
from fewshot_ad.parts.rotations import rotate
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support
from fewshot_ad.parts.training import step_generator

__all__ = ["DifferNet"]

VIEWS_GENERATOR = -2  # no step of training has it

_Extract = Callable[[Tensor], list[Tensor]]


class _Model(NamedTuple):
    """A flow over vectors that are centred and scaled."""

    mean: Float[Tensor, " d"]
    scale: Float[Tensor, ""]
    flow: ConditionalFlow

    def latents(
        self, vectors: Float[Tensor, "n d"]
    ) -> tuple[Float[Tensor, "n d"], Float[Tensor, " n"]]:
        return self.flow((vectors - self.mean) / self.scale)


@dataclass(kw_only=True, eq=False)
class DifferNet(FeatureMethod):
    """Flow over averaged features of three scales; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is AlexNet.
        levels: feature maps that are averaged; the paper takes the last one.
        divisors: an image is shown at its size divided by each of these.
        rotation: views are turned by up to so many degrees either way; 180 is any angle.
        support_views: rotated views of the support that are learned from, all images together.
        views: of a query image, evenly spread; an odd number holds the image as it is.
        flow_blocks: coupling blocks of the flow.
        clamping: greatest log-scale of a coupling (alpha).
        steps, batch_size: of training; a batch is of views.
        learning_rate, weight_decay: of Adam.
    """

    track: ClassVar[Track] = "target_tuned"
    PAPER: ClassVar[Mapping[str, Any]] = {
        "support_views": 163_200,  # each is new: 1700 batches of 96
        "views": 64,
        "steps": 1700,  # 24 x 8 epochs of some 200 images in 4 rotations
        "learning_rate": 2e-4,
    }
    levels: tuple[int, ...] = (3,)
    divisors: tuple[int, ...] = (1, 2, 4)
    rotation: float = 180.0
    support_views: int = 128
    views: int = 9
    flow_blocks: int = 8
    clamping: float = 3.0
    steps: int = 50
    batch_size: int = 96
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    model_: _Model | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(
            self,
            rotation=Between(0, 180),
            views=COUNT,
            flow_blocks=COUNT,
            clamping=POSITIVE,
        )
        if not self.divisors or any(divisor not in COUNT for divisor in self.divisors):
            raise FewShotError(f"divisors are {self.divisors}: expected one or more, each {COUNT}")

    def fit(self, support: Support) -> "DifferNet":
        """Train the flow on rotated views of the support.

        Raises:
            FewShotError: the loss is not finite.
        """
        check_support(support, self.min_shots)
        vectors = self._support_vectors(support.images)
        mean = vectors.mean(dim=0)
        scale = (vectors - mean).square().mean().sqrt().clamp(min=TINY)
        flow = ConditionalFlow(
            vectors.shape[1], self.flow_blocks, 0, self.clamping, seed=self.seed
        ).to(vectors.device)
        model = _Model(mean, scale, flow)

        def loss(rows: Int[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, ""]:
            return -log_likelihood(*model.latents(vectors[rows])).mean()  # eq. 3

        budget = budget_of(self, self.batch_size, betas=(0.8, 0.8), eps=1e-4)
        train_on_support(flow, loss, len(vectors), budget, "DifferNet")
        self.model_ = model
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Mean squared latents over the views, and what each position adds to that."""
        assert self.model_ is not None
        size = image.shape[-2], image.shape[-1]
        degrees = spread_angles(self.views, self.rotation)
        views = [self._scales(rotate(image, angle), self.features) for angle in degrees]
        vectors = torch.cat([_average(maps) for maps in views])
        squared, slope = _squared_latents(self.model_, vectors)
        turned = []
        for angle, maps, slopes in zip(degrees, views, slope, strict=True):
            parts = fuse(_parts(maps, slopes, self.model_.mean), size, "sum")
            turned.append(rotate(parts[:, None], -angle)[:, 0])
        return Judgement([torch.stack(turned).mean(dim=0)], squared.mean())

    def _support_vectors(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "m d"]:
        """Averaged features of randomly turned views; every image has one, and nearly as many."""
        count = max(self.support_views, len(images))
        generator = step_generator(self.seed, VIEWS_GENERATOR)
        degrees = self.rotation * (2 * torch.rand(count, generator=generator) - 1)
        vectors = []
        for number, angle in enumerate(degrees.tolist()):
            view = rotate(images[number % len(images)][None], angle)
            vectors.append(_average(self._scales(view, self.features.backbone)))  # seen once only
        return torch.cat(vectors)

    def _scales(self, view: Float[Tensor, "1 3 h w"], extract: _Extract) -> list[Tensor]:
        """Feature maps of a view at all sizes, one size after the other."""
        height, width = view.shape[2:]
        sizes = [(max(1, height // by), max(1, width // by)) for by in self.divisors]
        shown = [functional.interpolate(view, s, mode="bilinear", antialias=True) for s in sizes]
        return [maps for each in shown for maps in extract(each)]


def spread_angles(count: int, reach: float) -> list[float]:
    """Angles evenly spread from -reach to reach, as far from the ends as half from each other."""
    return [reach * (2 * number + 1 - count) / count for number in range(count)]


def _average(maps: list[Tensor]) -> Float[Tensor, "1 d"]:
    return torch.cat([each.mean(dim=(2, 3)) for each in maps], dim=1)


@torch.enable_grad()
def _squared_latents(
    model: _Model, vectors: Float[Tensor, "v d"]
) -> tuple[Float[Tensor, " v"], Float[Tensor, "v d"]]:
    """Mean squared latents of vectors (eq. 5), and how steeply they rise with each feature."""
    vectors = vectors.detach().requires_grad_()
    latents, _ = model.latents(vectors)
    squared = latents.square().mean(dim=1)
    (slope,) = torch.autograd.grad(squared.sum(), vectors)
    return squared.detach(), slope


def _parts(
    maps: list[Tensor], slope: Float[Tensor, " d"], mean: Float[Tensor, " d"]
) -> list[Float[Tensor, "1 h w"]]:
    """What every position adds to the score to first order: slope times what it has over normal."""
    widths = [each.shape[1] for each in maps]
    pieces = zip(maps, slope.split(widths), mean.split(widths), strict=True)
    return [
        ((each - normal.view(-1, 1, 1)) * steep.view(-1, 1, 1)).sum(dim=1)
        for each, steep, normal in pieces
    ]
