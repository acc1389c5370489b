"""What is learned of the residuals of each level, and the scales on which the levels meet."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fewshot_ad.parts.boundary import RunningBoundary
from fewshot_ad.parts.flows import position_vectors
from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.residual_stage import ResidualForm
from fewshot_ad.parts.training import Adam

TINY = 1e-6


class LevelModel(nn.Module, ABC):
    """What is learned of the residuals of one level."""

    scale: "ResidualScale"

    def prepare(self, normals: Sequence[Tensor], known: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Take in, before the first step, what needs no steps.

        Args:
            normals: residuals of some normal images, [n c h w] per known class.
            known: residuals [n c h w] of all images, and which positions [n h w] are anomalous.
        """
        self.scale.measure(normals)

    @abstractmethod
    def learn(
        self,
        residuals: Float[Tensor, "b c h w"],
        cells: Bool[Tensor, "b h w"],
        step: int,
        generator: torch.Generator,
    ) -> None:
        """Take one optimisation step on labelled residuals."""

    def calibrate(self, normals: Sequence[Tensor]) -> None:
        """Fix, before scores are scaled, what they are measured from.

        Args:
            normals: residuals of some normal images, [n c h w] per known class.
        """

    @abstractmethod
    def score(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
        """Anomaly of every position; higher is more anomalous."""

    def progress(self) -> dict[str, Any]:
        """What a step changes besides weights and buffers: optimisers and running boundaries."""
        own = vars(self).items()
        adam = {name: one.state_dict() for name, one in own if isinstance(one, Adam)}
        boundary = {name: asdict(one) for name, one in own if isinstance(one, RunningBoundary)}
        return {"adam": adam, "boundary": boundary}

    def take_progress(self, saved: Mapping[str, Any]) -> None:
        """Go on from what ``progress`` returned."""
        for name, state in saved["adam"].items():
            getattr(self, name).load_state_dict(state)
        for name, state in saved["boundary"].items():
            setattr(self, name, RunningBoundary(**state))


class ResidualScale(nn.Module):
    """Divides residuals by their root mean square over known normals: about one per channel.

    Gives the losses, whose constants are absolute, the same reach on every backbone and level.
    """

    rms: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rms", torch.ones(()))

    def forward(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Scaled residuals."""
        return residuals / self.rms

    @torch.no_grad()
    def measure(self, normals: Sequence[Float[Tensor, "_ c h w"]]) -> None:
        """Take the scale from the normal images of known classes that weigh alike."""
        mean = torch.stack([maps.square().mean() for maps in normals]).mean()
        self.rms = mean.sqrt().clamp(min=TINY)


class LikelihoodPeak(nn.Module):
    """The greatest log-likelihood of a known normal: what counts as wholly normal."""

    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(-torch.inf))

    @torch.no_grad()
    def measure(self, log_likelihoods: Sequence[Float[Tensor, "..."]]) -> None:
        """Take it from those of known normals."""
        self.value = torch.stack([values.max() for values in log_likelihoods]).max()

    def lacking(self, log_likelihood: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """What each lacks to the peak, negative above it; 0 as long as there is no peak."""
        return torch.where(self.value.isinf(), 0.0, self.value - log_likelihood)


class LevelModels(nn.Module):
    """The models of all levels, and the scales on which their scores and plain distances meet.

    A level's learned score is centred and divided by its spread on known normal images, the plain
    residual distance of all levels likewise; ``share`` mixes the two. All constants come from known
    classes, none from a target.
    """

    centre: Tensor
    spread: Tensor
    distance: Tensor  # mean and spread
    share: Tensor

    def __init__(self, levels: Sequence[LevelModel], form: ResidualForm) -> None:
        super().__init__()
        self.form: ResidualForm = form
        self.levels = cast("Sequence[LevelModel]", nn.ModuleList(levels))
        self.register_buffer("centre", torch.zeros(len(levels)))
        self.register_buffer("spread", torch.ones(len(levels)))
        self.register_buffer("distance", torch.tensor([0.0, 1.0]))
        self.register_buffer("share", torch.ones(()))

    def scores(self, residuals: list[Tensor]) -> list[Tensor]:
        """Anomaly of every position of every level, [b h w] each."""
        return self.mixed(*self.both(residuals))

    def mixed(self, learned: list[Tensor], plain: list[Tensor]) -> list[Tensor]:
        """Learned scores and plain distances, in the proportion of ``share``."""
        return [
            torch.lerp(one, other, self.share) for one, other in zip(plain, learned, strict=True)
        ]

    @torch.no_grad()
    def both(self, residuals: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Scaled learned scores and scaled plain distances of every level."""
        self._rest()
        each = zip(self.levels, residuals, self.centre, self.spread, strict=True)
        learned = [(model.score(maps) - centre) / spread for model, maps, centre, spread in each]
        mean, spread = self.distance
        return learned, [(plain - mean) / spread for plain in self._lengths(residuals)]

    @torch.no_grad()
    def rescale(self, normals: Sequence[list[Tensor]]) -> None:
        """Take the scales from residuals of known normal images, every class weighing alike."""
        self._rest()
        for level, model in enumerate(self.levels):
            model.calibrate([maps[level] for maps in normals])
            centre, spread = _scale([model.score(maps[level]) for maps in normals])
            self.centre[level], self.spread[level] = centre, spread
        of_classes = [self._lengths(maps) for maps in normals]
        flat = [torch.cat([maps.flatten() for maps in levels]) for levels in of_classes]
        self.distance = torch.stack(_scale(flat))

    def _rest(self) -> None:
        """No level learns; asked first, since to tell every part of a flow takes milliseconds."""
        if any(level.training for level in self.levels):
            self.eval()

    def _lengths(self, residuals: list[Tensor]) -> list[Tensor]:
        return [lengths(maps, self.form) for maps in residuals]


def lengths(residuals: Float[Tensor, "b c h w"], form: ResidualForm) -> Float[Tensor, "b h w"]:
    """The plain residual distance of every position, whether residuals are squared or not."""
    squared = residuals if form == "squared" else residuals.square()
    return squared.sum(dim=1).sqrt()


def flow_inputs(
    maps: Float[Tensor, "b c h w"], position_dims: int, rows: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "n c"], Float[Tensor, "n d"] | None]:
    """Vectors of some positions with the codes of where they are.

    Args:
        maps: what the flow is to see.
        position_dims: width of the position codes, a multiple of 4; 0 for none.
        rows: which positions, counted as by :func:`fewshot_ad.parts.maps.to_vectors`.
    """
    vectors = to_vectors(maps)[rows]
    if not position_dims:
        return vectors, None
    batch, _, height, width = maps.shape
    places = position_vectors(position_dims, batch, height, width)[rows]
    return vectors, places.to(maps.device)


def _scale(of_classes: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over classes that weigh alike."""
    mean = torch.stack([values.mean() for values in of_classes]).mean()
    around = torch.stack([(values - mean).square().mean() for values in of_classes]).mean()
    return mean, around.sqrt().clamp(min=TINY)
