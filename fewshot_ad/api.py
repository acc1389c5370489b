"""The vocabulary: what a sample, an episode, a support set, a prediction and a method are.

Read this file first. A *dataset* lists samples. An *episode* freezes N support samples and the
query samples of one class. A *method* sees only tensors: ``fit(support)``, then
``predict(images)``. Everywhere, **higher is more anomalous**.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

Track = Literal[
    "training_free", "meta_trained", "batched", "target_tuned", "supervised", "synthetic"
]


class FewShotError(ValueError):
    """What the user can mend: says what was found, what was expected and what to do."""


class NotFittedError(FewShotError):
    """``predict`` came before ``fit``, or ``fit`` before ``meta_train`` / ``load``."""


@dataclass(frozen=True, slots=True, order=True)
class Sample:
    """One image of a dataset; paths are POSIX and relative to its root, so manifests travel."""

    path: str
    class_name: str
    is_anomalous: bool
    mask_path: str | None = None
    defect: str | None = None


@runtime_checkable
class Dataset(Protocol):
    """Lists samples and reads them; knows nothing of episodes or methods."""

    name: str
    classes: tuple[str, ...]

    def train(self, class_name: str) -> tuple[Sample, ...]:
        """Normal samples of the train split, in natural order: where supports are drawn from."""
        ...

    def test(self, class_name: str) -> tuple[Sample, ...]:
        """Normal and anomalous samples of the test split, in natural order."""
        ...

    def read_image(self, sample: Sample) -> UInt8[np.ndarray, "h w 3"]:
        """The image as RGB bytes."""
        ...

    def read_mask(self, sample: Sample) -> Bool[np.ndarray, "h w"] | None:
        """Ground truth at native size, all false for a normal image; None if it has none."""
        ...

    def digest(self, sample: Sample) -> str:
        """Digest of the stored content of the image: equal for two copies of one file."""
        ...


@dataclass(frozen=True, slots=True)
class Episode:
    """One trial: N support samples and the query samples of one class, frozen."""

    dataset: str
    target_class: str
    seed: int
    support: tuple[Sample, ...]
    query: tuple[Sample, ...]
    anomalous_support: tuple[Sample, ...] = ()
    manifest: str = "drawn"

    @property
    def shots(self) -> int:
        """N."""
        return len(self.support)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """From RGB bytes to the tensor that a backbone eats; masks go through the same geometry.

    ``squash`` resizes to a square and loses nothing; ``pad`` keeps the aspect and pads with the
    border of the image; ``crop`` resizes the short side and keeps the centre, which is the habit
    of many papers and can cut defects away.

    Attributes:
        size: side of the square, in pixels.
        geometry: ``squash``, ``pad`` or ``crop``.
        mean, std: of the channels, which are in [0, 1] before.
    """

    size: int = 224
    geometry: Literal["squash", "pad", "crop"] = "squash"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class LabelledBatch:
    """Images with their ground truth; ``masks`` is all false for normal images."""

    images: Float[Tensor, "b 3 h w"]
    masks: Bool[Tensor, "b h w"]
    is_anomalous: Bool[Tensor, " b"]


@dataclass(frozen=True, slots=True)
class Support:
    """What ``fit`` is given: N normal images, N may be 0, and rarely a few labelled anomalies."""

    target_class: str
    images: Float[Tensor, "n 3 h w"]
    anomalous: LabelledBatch | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What ``predict`` returns, on the CPU; maps have the size of the images given."""

    image_score: Float[Tensor, " b"]
    anomaly_map: Float[Tensor, "b h w"]


@runtime_checkable
class KnownClasses(Protocol):
    """Labelled classes for meta-training; ``digests`` names every image for the leak guard."""

    names: tuple[str, ...]
    digests: frozenset[str]

    def digest_of(self, name: str) -> str:
        """One digest of everything that is read of a class, in order."""
        ...

    def normals(self, name: str, preprocess: Preprocess) -> Iterator[LabelledBatch]:
        """The train normals of a class, in order, in batches."""
        ...

    def labelled(self, name: str, preprocess: Preprocess) -> Iterator[LabelledBatch]:
        """Normal and anomalous images of a class with their masks, in order, in batches."""
        ...


@dataclass(kw_only=True, eq=False)
class Method(ABC):
    """Base of every method. The dataclass fields *are* the hyper-parameters.

    Attributes:
        seed: of every random choice.
        device: where it runs; ``auto`` takes an accelerator if there is one.
        preprocess: how images become tensors.
    """

    track: ClassVar[Track]
    min_shots: ClassVar[int] = 1
    seed: int = 0
    device: str = "auto"
    preprocess: Preprocess = field(default_factory=Preprocess)

    @abstractmethod
    def fit(self, support: Support) -> "Method":
        """Learn the normal look of a class; forgets every earlier episode, returns ``self``."""

    @abstractmethod
    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Score images; changes nothing, and an image alone scores as it does in a batch."""

    def params(self) -> dict[str, Any]:
        """The hyper-parameters as JSON-able values, as every result row records them."""
        everything = asdict(replace(self))  # a fresh copy: what was learned is no parameter
        return {one.name: everything[one.name] for one in fields(self) if one.init}

    def variant(self, **changes: Any) -> "Method":
        """A fresh, unfitted copy with some hyper-parameters changed."""
        return replace(self, **changes)


class MetaTrained(Method):
    """A method with a stage before ``fit``: trained once on known classes, never on the target."""

    @abstractmethod
    def meta_train(self, known: KnownClasses, *, resume: Path | None = None) -> "MetaTrained":
        """Learn from the known classes, going on from the file ``resume``; returns ``self``."""

    @abstractmethod
    def save(self, path: Path) -> None:
        """Write what was meta-trained as safetensors with a JSON header."""

    @abstractmethod
    def load(self, path: Path) -> "MetaTrained":
        """Read what ``save`` wrote; refuses a checkpoint of another backbone or configuration."""
