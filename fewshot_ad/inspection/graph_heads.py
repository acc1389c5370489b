"""What every method that can be exported does with the features of its backbone.

A head takes the levels of the backbone and returns one anomaly map or one for each level, as the
``judge`` of its method does.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError, Method
from fewshot_ad.evaluation.identity import method_name
from fewshot_ad.inspection.graph_parts import (
    Chosen,
    Difference,
    Distance,
    Embedded,
    Filter,
    Levels,
    Mixed,
    copied,
)
from fewshot_ad.methods.padim import PaDiM
from fewshot_ad.methods.patchcore import PatchCore
from fewshot_ad.methods.resad import ResAD
from fewshot_ad.methods.resad_pp import ResADPlusPlus
from fewshot_ad.methods.residual_distance import ResidualDistance
from fewshot_ad.methods.simplenet import SimpleNet
from fewshot_ad.parts.embedding import Embedding, average_neighbourhood
from fewshot_ad.parts.flows import draw_rotation
from fewshot_ad.parts.least_squares import LeastSquaresConstraintor
from fewshot_ad.parts.level_models import LevelModels
from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.patches import join_levels
from fewshot_ad.parts.residual_learning import ResidualLearner

Maps = list[Tensor]


class PatchCoreHead(nn.Module):
    """The bank of PatchCore."""

    def __init__(self, method: PatchCore) -> None:
        super().__init__()
        if method.n_neighbors != 1:
            raise FewShotError("a re-weighted image score cannot be exported: set n_neighbors=1")
        self.side, self.unit_length = method.neighbourhood, method.unit_length
        self.nearest = Distance(method.bank_)

    def forward(self, levels: Levels) -> Maps:
        """One map of distances."""
        patches = join_levels([average_neighbourhood(maps, self.side) for maps in levels])
        patches = functional.normalize(patches, dim=1) if self.unit_length else patches
        return [self.nearest(patches)]


class DistanceHead(nn.Module):
    """The banks of the plain residual distance, one for each level."""

    def __init__(self, method: ResidualDistance) -> None:
        super().__init__()
        assert method.support_ is not None
        self.embed = _embedded(method)
        self.nearest = nn.ModuleList(Distance(to_vectors(one)) for one in method.support_)

    def forward(self, levels: Levels) -> Maps:
        """A map of distances for each level."""
        pairs = zip(self.nearest, self.embed(levels), strict=True)
        return [nearest(maps) for nearest, maps in pairs]


class ResidualHead(nn.Module):
    """Matching, constraintor and flow of ResAD and of ResAD++."""

    def __init__(self, method: ResidualLearner) -> None:
        super().__init__()
        if isinstance(method, ResADPlusPlus) and method.keep < 1:
            raise FewShotError("residuals drawn to a codebook cannot be exported: set keep=1")
        assert method.support_ is not None
        assert method.models_ is not None
        self.embed, self.is_squared = _embedded(method), method.form == "squared"
        self.match = nn.ModuleList(
            Difference(to_vectors(one), method.metric) for one in method.support_
        )
        self.models = _without_loops(copied(method.models_, method))

    def forward(self, levels: Levels) -> Maps:
        """A map of mixed scores for each level."""
        embedded = self.embed(levels)
        residuals = [match(maps) for match, maps in zip(self.match, embedded, strict=True)]
        return self.models.scores(
            [one.square() for one in residuals] if self.is_squared else residuals
        )


class GaussianHead(nn.Module):
    """The Gaussians of PaDiM, in double precision as there."""

    mean: Tensor
    whitening: Tensor
    directions: Tensor

    def __init__(self, method: PaDiM) -> None:
        super().__init__()
        assert method.gaussians_ is not None
        found = method.gaussians_
        unit = torch.eye(len(found.whitener)).to(found.whitener)
        whitening = torch.linalg.solve_triangular(found.whitener, unit, upper=False).mT
        self.grid = found.grid
        self.narrow = _narrowed(method)
        self.register_buffer("mean", found.mean.cpu().clone())
        self.register_buffer("whitening", whitening.cpu().contiguous())
        self.register_buffer("directions", found.directions.cpu().mT.contiguous())

    def forward(self, levels: Levels) -> Maps:
        """One map of Mahalanobis distances."""
        maps = self.narrow(join_levels(levels))
        away = maps.flatten(2).mT.double() - self.mean
        white = away @ self.whitening
        along = (white[:, :, None] @ self.directions)[:, :, 0]
        squared = white.square().sum(dim=2) - along.square().sum(dim=2)
        return [squared.clamp(min=0).sqrt().float().unflatten(1, self.grid)]


class DiscriminatorHead(nn.Module):
    """Adapter and discriminator of SimpleNet."""

    def __init__(self, method: SimpleNet) -> None:
        super().__init__()
        assert method.scale_ is not None
        assert method.network_ is not None
        self.side = method.neighbourhood
        self.scale, self.network = copied(method.scale_), copied(method.network_)

    def forward(self, levels: Levels) -> Maps:
        """One map of how little every position looks normal."""
        patches = join_levels([average_neighbourhood(maps, self.side) for maps in levels])
        logits = self.network(to_vectors(self.scale(patches)))
        return [-logits.unflatten(0, (-1, *patches.shape[2:]))]


HEADS: dict[type[Method], Callable[[Any], nn.Module]] = {
    PatchCore: PatchCoreHead,
    PaDiM: GaussianHead,
    ResidualDistance: DistanceHead,
    SimpleNet: DiscriminatorHead,
    ResAD: ResidualHead,
    ResADPlusPlus: ResidualHead,
}
EXPORTABLE = "patchcore, padim, residual_distance, simplenet, resad and resad_pp"


def head_of(method: Method) -> nn.Module:
    """What a fitted method does with features.

    Raises:
        FewShotError: the method, or a parameter of it, cannot be exported.
    """
    head = HEADS.get(type(method))
    if head is None:
        raise FewShotError(f"{method_name(method)} cannot be exported; {EXPORTABLE} can")
    return head(method)


def _embedded(method: ResidualDistance | ResidualLearner) -> Embedded:
    embedding = Embedding(method.neighbourhood, method.channels, method.unit_length)
    return Embedded(embedding, method.features.backbone.channels)


def _narrowed(method: PaDiM) -> Mixed | Chosen:
    """The channels that PaDiM keeps, or mixes."""
    width = sum(method.features.backbone.channels)
    kept = min(method.channels or width, width)
    generator = torch.Generator().manual_seed(method.seed)
    if method.reduction == "orthogonal" and kept < width:
        return Mixed(draw_rotation(width, generator)[:kept])
    return Chosen(torch.randperm(width, generator=generator)[:kept].sort().values)


def _without_loops(models: LevelModels) -> LevelModels:
    """The same models, whose constraintors take all images at once."""
    for level in models.levels:
        found = getattr(level, "constraintor", None)
        if isinstance(found, LeastSquaresConstraintor):
            level.constraintor = Filter(found)
    return models
