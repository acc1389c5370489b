"""Methods that are not ours, small and quick: what ``--method strangers:NearestEdges`` finds."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import (
    FewShotError,
    KnownClasses,
    MetaTrained,
    Method,
    NotFittedError,
    Prediction,
    Support,
    Track,
)


@dataclass(kw_only=True, eq=False)
class NearestEdges(Method):
    """Distance to the nearest support cell in colour and edge strength (2026, https://example.org)."""

    track: ClassVar[Track] = "training_free"
    cell: int = 8

    def __post_init__(self) -> None:
        self.bank_: Float[Tensor, "n d"] | None = None

    def fit(self, support: Support) -> "NearestEdges":
        if len(support.images) < self.min_shots:
            raise FewShotError(f"needs {self.min_shots} support images, got {len(support.images)}")
        self.bank_ = self._cells(support.images).flatten(0, 2)
        return self

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Prediction:
        if self.bank_ is None:
            raise NotFittedError("fit before predict")
        distance = torch.cdist(
            self._cells(images), self.bank_.expand(len(images), -1, -1).unsqueeze(1)
        )
        nearest = distance.min(dim=-1).values
        size = (images.shape[2], images.shape[3])
        maps = functional.interpolate(nearest.unsqueeze(1), size, mode="bilinear").squeeze(1)
        return Prediction(nearest.amax(dim=(1, 2)), maps)

    def _cells(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b p q 6"]:
        edges = functional.pad(images.diff(dim=-1).abs(), (0, 1)) + functional.pad(
            images.diff(dim=-2).abs(), (0, 0, 0, 1)
        )
        cells = functional.avg_pool2d(torch.cat([images, 4 * edges], dim=1), self.cell)
        return cells.permute(0, 2, 3, 1)


@dataclass(kw_only=True, eq=False)
class ScaledEdges(MetaTrained):
    """The same distance times a scale that known classes teach (2026, https://example.org)."""

    track: ClassVar[Track] = "meta_trained"
    cell: int = 8

    def __post_init__(self) -> None:
        self.scale_: Float[Tensor, " one"] | None = None
        self._nearest = NearestEdges(cell=self.cell)

    def meta_train(
        self,
        known: KnownClasses,
        *,
        resume: Path | None = None,
    ) -> "ScaledEdges":
        spread = [
            batch.images.std()
            for name in known.names
            for batch in known.normals(name, self.preprocess)
        ]
        self.scale_ = 1 / torch.stack(spread).mean().reshape(1)
        return self

    def save(self, path: Path) -> None:
        save_file({"scale": self._scale()}, path)

    def load(self, path: Path) -> "ScaledEdges":
        with safe_open(path, "pt") as file:
            self.scale_ = file.get_tensor("scale")
        return self

    def fit(self, support: Support) -> "ScaledEdges":
        self._scale()
        self._nearest.fit(support)
        return self

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Prediction:
        plain = self._nearest.predict(images)
        return Prediction(plain.image_score * self._scale(), plain.anomaly_map * self._scale())

    def _scale(self) -> Float[Tensor, " one"]:
        if self.scale_ is None:
            raise NotFittedError("meta_train or load before fit")
        return self.scale_


def network() -> nn.Module:
    """A backbone of one's own: three levels at strides 4, 8 and 16."""
    return _Pooled(float("1"))


def twin_network() -> nn.Module:
    """A network of the same shape with other weights."""
    return _Pooled(float("2"))


def broken_network() -> nn.Module:
    """The same on an unlucky day: NaN where an image is bright."""
    return _Pooled(float("nan"))


class _Pooled(nn.Module):
    def __init__(self, bright: float) -> None:
        super().__init__()
        self.bright = nn.Parameter(torch.tensor(bright))

    def forward(self, images: Tensor) -> list[Tensor]:
        seen = torch.where(images > 0, images * self.bright, images)
        both = torch.cat([seen, seen.square()], dim=1)
        return [functional.avg_pool2d(both, stride) for stride in (4, 8, 16)]


@dataclass(kw_only=True, eq=False)
class MortalEdges(NearestEdges):
    """Takes its process with it when it meets one class (2026, https://example.org)."""

    victim: str = ""

    def fit(self, support: Support) -> "MortalEdges":
        if support.target_class == self.victim:
            os.kill(os.getpid(), signal.SIGKILL)
        super().fit(support)
        return self
