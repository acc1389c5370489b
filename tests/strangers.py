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
        if not support.images.isfinite().all():
            raise FewShotError("a support image holds NaN or infinite values")
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
class TunedEdges(NearestEdges):
    """The same distance times a gain that is learned in steps (2026, https://example.org)."""

    track: ClassVar[Track] = "target_tuned"
    PAPER: ClassVar = {"steps": 500}
    steps: int = 5
    learning_rate: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise FewShotError(f"steps is {self.steps}: expected 1 or more")
        if not self.learning_rate > 0:
            raise FewShotError(f"learning_rate is {self.learning_rate}: expected more than 0")

    def fit(self, support: Support) -> "TunedEdges":
        self.gain_ = self._tuned()
        super().fit(support)
        return self

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Prediction:
        plain = super().predict(images)
        return Prediction(plain.image_score * self.gain_, plain.anomaly_map * self.gain_)

    def _tuned(self) -> Float[Tensor, " one"]:
        gain = 1 + torch.rand(1, generator=torch.Generator().manual_seed(self.seed))
        for step in range(self.steps):
            if not (gain - 1).square().isfinite():
                rate = self.learning_rate
                raise FewShotError(f"the loss is infinite at step {step} with learning_rate {rate}")
            gain = gain - self.learning_rate * 2 * (gain - 1)
        return gain


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


@dataclass(kw_only=True, eq=False)
class UnluckyEdges(NearestEdges):
    """Fails at one class, and takes its process with it once (2026, https://example.org).

    Attributes:
        victim: the class at which an error is raised.
        marker: a file; while there is none, the process dies after making it.
        at_shots: the number of shots at which it dies.
    """

    victim: str = ""
    marker: str = ""
    at_shots: int = 2

    def fit(self, support: Support) -> "UnluckyEdges":
        if support.target_class == self.victim:
            raise RuntimeError("no luck\ntoday")
        if self.marker and len(support.images) == self.at_shots:
            try:
                Path(self.marker).touch(exist_ok=False)
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        super().fit(support)
        return self
