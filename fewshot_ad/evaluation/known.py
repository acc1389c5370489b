"""Known classes for meta-training: whole datasets or chosen classes, always less the target."""

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from fewshot_ad.api import Dataset, FewShotError, LabelledBatch, Preprocess, Sample
from fewshot_ad.assets import unknown_name
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import permuted
from fewshot_ad.evaluation.leaks import image_digests
from fewshot_ad.evaluation.reading import batched, read_labelled

BATCH_SIZE = 16
LIMIT = 96


@dataclass(frozen=True, slots=True)
class KnownClass:
    """The images of one known class that meta-training may use; every anomaly here has a mask."""

    dataset: Dataset
    class_name: str
    normals: tuple[Sample, ...]
    labelled: tuple[Sample, ...]

    @property
    def name(self) -> str:
        """``dataset/class``, as in ``synthetic/gear``."""
        return f"{self.dataset.name}/{self.class_name}"


class KnownImages:
    """Labelled classes of any datasets, read 16 images at a time; see ``api.KnownClasses``."""

    def __init__(self, classes: Sequence[KnownClass]) -> None:
        """Gather classes.

        Raises:
            FewShotError: none is left, or two have the same name.
        """
        self._classes = {known.name: known for known in classes}
        self.names = tuple(self._classes)
        twice = [name for name, n in Counter(known.name for known in classes).items() if n > 1]
        if twice:
            raise FewShotError(
                f"the known class {twice[0]} is given twice; name each class once, and rename one "
                "of two folders that hold different classes of the same name."
            )
        if not classes:
            raise FewShotError(
                "no known class is left for meta-training; give one other than the target, or "
                "the drawn ones with --known synthetic."
            )

    @cached_property
    def digests(self) -> frozenset[str]:
        """The content of every image in use."""
        return frozenset(
            digest for of_class in self._content for listed in of_class[1:3] for digest in listed
        )

    @cached_property
    def digest(self) -> str:
        """Short digest of names, images and masks, in order: what a checkpoint is found by."""
        return hashlib.sha256(json.dumps(self._content).encode()).hexdigest()[:16]

    def digest_of(self, name: str) -> str:
        """Short digest of the images and masks of one class, in order."""
        content = dict(zip(self.names, self._content, strict=True))[name]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]

    def normals(self, name: str, preprocess: Preprocess) -> Iterator[LabelledBatch]:
        """The train normals of a class, in natural order."""
        known = self._named(name)
        return _read(known.dataset, known.normals, preprocess)

    def labelled(self, name: str, preprocess: Preprocess) -> Iterator[LabelledBatch]:
        """The test normals and anomalies of a class with their masks, in natural order."""
        known = self._named(name)
        return _read(known.dataset, known.labelled, preprocess)

    def without(self, names: Collection[str]) -> "KnownImages":
        """The others of these classes.

        Raises:
            FewShotError: none is left.
        """
        return KnownImages([known for name, known in self._classes.items() if name not in names])

    def split(self, n_held_out: int, seed: int = 0) -> tuple["KnownImages", "KnownImages"]:
        """Classes to train on, and ``n_held_out`` others to select by.

        Raises:
            FewShotError: there are not that many classes, or none would be left to train on.
        """
        if not 0 < n_held_out < len(self.names):
            raise FewShotError(
                f"cannot hold out {n_held_out} of {len(self.names)} known classes; hold out at "
                "least one and leave at least one to train on."
            )
        chosen = {*permuted(self.names, "held out", seed)[:n_held_out]}
        train = [known for name, known in self._classes.items() if name not in chosen]
        held_out = [known for name, known in self._classes.items() if name in chosen]
        return KnownImages(train), KnownImages(held_out)

    @cached_property
    def _content(self) -> list[tuple[str, list[str], list[str], list[str]]]:
        """Name, train normals, labelled images and their masks, of every class."""
        return [
            (
                name,
                [*image_digests(known.dataset, known.normals).values()],
                [*image_digests(known.dataset, known.labelled).values()],
                [_mask_digest(known.dataset, sample) for sample in known.labelled],
            )
            for name, known in self._classes.items()
        ]

    def _named(self, name: str) -> KnownClass:
        if name not in self._classes:
            raise unknown_name("known class", name, self.names)
        return self._classes[name]


def known_images(
    pairs: Iterable[tuple[Dataset, Iterable[str]]],
    *,
    exclude: tuple[str, str] | None = None,
    limit: int = LIMIT,
    seed: int = 0,
) -> KnownImages:
    """Known classes from datasets and the names of their classes.

    Args:
        pairs: a dataset and the classes of it to use.
        exclude: dataset and class under test, silently left out.
        limit: at most so many train normals, test normals and anomalies of a class, each drawn
            with ``seed``.
        seed: of the draw.

    Raises:
        FewShotError: no class is left, a name comes twice, or a class is unknown.
    """
    if limit < 1:
        raise FewShotError(f"the limit of known images is {limit}; give 1 or more.")
    return KnownImages(
        [
            _known_class(dataset, name, limit, seed)
            for dataset, names in pairs
            for name in names
            if (dataset.name, name) != exclude
        ]
    )


def parse_known(
    text: str,
    *,
    exclude: tuple[str, str] | None = None,
    leave_out: bool = False,
    limit: int = LIMIT,
    seed: int = 0,
) -> KnownImages:
    """Known classes as ``--known`` gives them: ``NAME[:ROOT][:class+class]``, joined by commas.

    As in ``synthetic,folder:path/to/images:bottle+tile``. A dataset without classes stands for
    all of its classes but the target. A target that is named is an error, unless ``leave_out``
    asks for one list to serve several targets, each less itself; see ``known_images`` for the rest.

    Raises:
        FewShotError: as ``known_images``, or the target is named among the classes.
    """
    pairs = parse_classes(text, refused=None if leave_out else exclude)
    return known_images(pairs, exclude=exclude, limit=limit, seed=seed)


def parse_classes(
    text: str, *, refused: tuple[str, str] | None = None
) -> list[tuple[Dataset, tuple[str, ...]]]:
    """The datasets and classes that ``--known`` gives, see ``parse_known``; reads no image.

    Raises:
        FewShotError: a name is unknown, or ``refused`` is named among the classes.
    """
    return [_parse_one(part.strip(), refused) for part in text.split(",") if part.strip()]


def _parse_one(text: str, refused: tuple[str, str] | None) -> tuple[Dataset, tuple[str, ...]]:
    """A dataset and its chosen classes; what follows the name may be a root, classes or both."""
    name, _, rest = text.partition(":")
    root, _, chosen = rest.rpartition(":")
    if "/" in chosen or (not root and Path(chosen).exists()):
        root, chosen = rest, ""
    dataset = load_dataset(f"{name}:{root}" if root else name)
    if not chosen:
        return dataset, dataset.classes
    classes = tuple(chosen.split("+"))
    for class_name in classes:
        if class_name not in dataset.classes:
            raise unknown_name(f"class of {dataset.name}", class_name, dataset.classes)
        if (dataset.name, class_name) == refused:
            raise FewShotError(
                f"the target class {dataset.name}/{class_name} is among the known ones; leave it "
                "out of --known, since a method must not have seen it."
            )
    return dataset, classes


def _known_class(dataset: Dataset, class_name: str, limit: int, seed: int) -> KnownClass:
    test = dataset.test(class_name)
    anomalies = [sample for sample in test if sample.is_anomalous]
    masked = [sample for sample in anomalies if _has_mask(dataset, sample)]
    if len(masked) < len(anomalies):
        warnings.warn(
            f"{dataset.name}/{class_name}: {len(anomalies) - len(masked)} of {len(anomalies)} "
            "anomalies have no mask and are left out of meta-training.",
            stacklevel=5,
        )
    key = (dataset.name, class_name, seed)
    drawn = {
        *_drawn([sample for sample in test if not sample.is_anomalous], limit, *key, "normal"),
        *_drawn(masked, limit, *key, "anomalous"),
    }
    return KnownClass(
        dataset,
        class_name,
        normals=_drawn(dataset.train(class_name), limit, *key, "train"),
        labelled=tuple(sample for sample in test if sample in drawn),
    )


def _mask_digest(dataset: Dataset, sample: Sample) -> str:
    """Of the mask as it is stored, which is not drawn to pixels; empty where there is none."""
    return dataset.digest(replace(sample, path=sample.mask_path)) if sample.mask_path else ""


def _has_mask(dataset: Dataset, sample: Sample) -> bool:
    return sample.mask_path is not None or dataset.read_mask(sample) is not None


def _drawn(samples: Sequence[Sample], limit: int, *key: str | int) -> tuple[Sample, ...]:
    """At most ``limit`` of them, in their own order."""
    chosen = {*permuted((sample.path for sample in samples), *key)[:limit]}
    return tuple(sample for sample in samples if sample.path in chosen)


def _read(
    dataset: Dataset, samples: Sequence[Sample], preprocess: Preprocess
) -> Iterator[LabelledBatch]:
    for batch in batched(samples, BATCH_SIZE):
        yield read_labelled(dataset, batch, preprocess)
