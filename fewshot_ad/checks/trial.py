"""What a method under contract is tried on: a few drawn images, small and quick."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, cast

from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_ad.api import LabelledBatch, MetaTrained, Method, Prediction, Preprocess, Support
from fewshot_ad.data import load_dataset
from fewshot_ad.evaluation.checkpoints import load_checkpoint, save_checkpoint
from fewshot_ad.evaluation.reading import read_labelled
from fewshot_ad.methods import load_method

Make = Callable[[], Method]

KNOWN = ("grid", "washer")
TARGET = "brushed_metal"
SHOTS = 4
ANOMALOUS_SHOTS = 2
N_TRAIN, N_TEST = 8, 6
FEW = 2  # images where any will do
SIZE, INNER_SIZE, STEPS = 64, 32, 6


def shrunk(method: Method, inner_size: int | None = INNER_SIZE) -> Method:
    """The method with random small features, small images and few steps: quick, and no good.

    Args:
        method: unfitted.
        inner_size: of a method that sees images at a size of its own; None leaves it at that.
    """
    changes = _small(method)
    if inner_size is not None and any(one.name == "inner_size" for one in fields(method)):
        changes["inner_size"] = inner_size
    return method.variant(preprocess=Preprocess(size=SIZE), **changes)


def _small(method: Method) -> dict[str, Any]:
    """What is changed of a method's own parameters; of an ensemble, those of its members."""
    own = {field.name for field in fields(method)}
    changes: dict[str, Any] = {"backbone": "random:tiny"} if "backbone" in own else {}
    changes |= {name: STEPS for name in own if name.rpartition("_")[2] in ("steps", "views")}
    if "members" in own:
        members: tuple[str, ...] = getattr(method, "members", ())
        changes["parameters"] = {name: _small(load_method(name)) for name in members}
    return changes


def maker(method: Method, folder: Path) -> Make:
    """What makes fresh methods ready for ``fit``; meta-trains once where that is needed."""
    if not isinstance(method, MetaTrained):
        return method.variant
    checkpoint = folder / f"{type(method).__name__}.safetensors"
    save_checkpoint(meta_trained(method), checkpoint)
    return lambda: load_checkpoint(method, checkpoint)


def meta_trained(method: MetaTrained) -> MetaTrained:
    """A copy of the method that has learned from the drawn known classes."""
    return cast(MetaTrained, method.variant()).meta_train(DrawnClasses())


def support(method: Method, shots: int = SHOTS) -> Support:
    """The first train normals of the target class; for a supervised method labelled anomalies too.

    Those are none of the query.
    """
    images = _drawn(TARGET, method.preprocess, "train").images[:shots].clone()
    is_taught = method.track == "supervised"
    return Support(TARGET, images, _unjudged(method.preprocess) if is_taught else None)


def query(method: Method, class_name: str = TARGET) -> Float[Tensor, "b 3 h w"]:
    """Six normal and six anomalous images of a class."""
    return _drawn(class_name, method.preprocess, "test").images.clone()


def truth(method: Method) -> Bool[Tensor, " b"]:
    """Which images of the query are anomalous."""
    return _drawn(TARGET, method.preprocess, "test").is_anomalous


def outcome(method: Method) -> Prediction:
    """What the method says of the query after a fit."""
    return method.fit(support(method)).predict(query(method))


@cache
def usual(make: Make) -> Prediction:
    """The outcome of a fresh method, worked out once for all checks that only look at it."""
    return outcome(make())


def fingerprint(make: Make) -> dict[str, list[float]]:
    """Scores of the query with mean and deviation of each map: what golden files keep."""
    found = outcome(make())
    values = {
        "image_score": found.image_score,
        "map_mean": found.anomaly_map.mean(dim=(1, 2)),
        "map_std": found.anomaly_map.std(dim=(1, 2)),
    }
    return {name: [float(f"{each:.6g}") for each in row] for name, row in values.items()}


class DrawnClasses:
    """Two drawn classes as the known ones: a few labelled images each."""

    names = tuple(f"synthetic/{name}" for name in KNOWN)
    digests: frozenset[str] = frozenset()

    def digest_of(self, name: str) -> str:
        """The name tells everything: drawings never change."""
        return name

    def normals(self, name: str, preprocess: Preprocess) -> Iterator[LabelledBatch]:
        """The train normals of a class in one batch."""
        yield _drawn(name.rpartition("/")[2], preprocess, "train")

    def labelled(self, name: str, preprocess: Preprocess) -> Iterator[LabelledBatch]:
        """Normal and anomalous test images of a class in one batch."""
        yield _drawn(name.rpartition("/")[2], preprocess, "test")


@cache
def _unjudged(preprocess: Preprocess) -> LabelledBatch:
    """Anomalies that the query leaves out."""
    dataset = load_dataset("synthetic")
    anomalous = [sample for sample in dataset.test(TARGET) if sample.is_anomalous]
    spread = anomalous[1 :: len(anomalous) // ANOMALOUS_SHOTS]
    return read_labelled(dataset, spread[:ANOMALOUS_SHOTS], preprocess)


@cache
def _drawn(class_name: str, preprocess: Preprocess, split: str) -> LabelledBatch:
    dataset = load_dataset("synthetic")
    if split == "train":
        return read_labelled(dataset, dataset.train(class_name)[:N_TRAIN], preprocess)
    normal = [sample for sample in dataset.test(class_name) if not sample.is_anomalous]
    anomalous = [sample for sample in dataset.test(class_name) if sample.is_anomalous]
    spread = anomalous[:: len(anomalous) // N_TEST]
    return read_labelled(dataset, [*normal[:N_TEST], *spread[:N_TEST]], preprocess)
