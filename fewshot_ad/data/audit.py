"""Looks at every image and mask of a dataset and says what is wrong with it."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import UInt8

from fewshot_ad.api import Dataset, FewShotError, Sample
from fewshot_ad.data.files import ImageFiles, MaskSizeError
from fewshot_ad.data.folder import NORMAL_NAMES
from fewshot_ad.data.published import Published
from fewshot_ad.image_files import read_header

__all__ = ["Audit", "ClassCount", "Finding", "audit"]

Severity = Literal["error", "warning", "note"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ClassCount:
    """Images of one class; the smallest and the largest by area, as (height, width) in pixels."""

    class_name: str
    train: int
    test_normal: int
    test_anomalous: int
    with_mask: int
    smallest: tuple[int, int] | None = None
    largest: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a class: errors and warnings want mending, a note does not."""

    severity: Severity
    class_name: str
    what: str
    details: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Audit:
    """What a look at all images gave; ``modes`` counts files by Pillow's mode of storage."""

    dataset: str
    counts: tuple[ClassCount, ...]
    modes: dict[str, int]
    findings: tuple[Finding, ...]

    @property
    def clean(self) -> bool:
        """No errors and no warnings."""
        return all(finding.severity == "note" for finding in self.findings)


def audit(dataset: Dataset, progress: Progress | None = None) -> Audit:
    """Read everything once and report; ``progress`` is called with (images done, images in all).

    Only what one image needs is in memory at a time.
    """
    scans = [_Scan(dataset, name) for name in dataset.classes]
    total, done = sum(len(scan.samples) for scan in scans), 0
    for scan in scans:
        for sample in scan.samples:
            scan.look(sample)
            done += 1
            if progress:
                progress(done, total)
    findings = [finding for scan in scans for finding in scan.findings()]
    modes: Counter[str] = sum((scan.modes for scan in scans), Counter())
    return Audit(
        dataset.name,
        tuple(scan.count() for scan in scans),
        dict(sorted(modes.items())),
        (*findings, *_total(dataset, scans), *_duplicates(scans)),
    )


@dataclass(slots=True)
class _Scan:
    """What is learnt of one class, image by image."""

    dataset: Dataset
    class_name: str
    train: tuple[Sample, ...] = ()
    test: tuple[Sample, ...] = ()
    with_mask: int = 0
    sizes: set[tuple[int, int]] = field(default_factory=set)
    modes: Counter[str] = field(default_factory=Counter)
    by_content: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    without_mask: list[str] = field(default_factory=list)
    found: dict[tuple[Severity, str], list[str]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        try:
            self.train = self.dataset.train(self.class_name)
            self.test = self.dataset.test(self.class_name)
        except FewShotError as error:
            self.found["error", "the class cannot be used"].append(str(error))

    @property
    def samples(self) -> tuple[Sample, ...]:
        return self.train + self.test

    @property
    def anomalies(self) -> list[Sample]:
        return [sample for sample in self.test if sample.is_anomalous]

    def count(self) -> ClassCount:
        ordered = sorted(self.sizes, key=lambda size: (size[0] * size[1], size))
        return ClassCount(
            self.class_name,
            train=len(self.train),
            test_normal=len(self.test) - len(self.anomalies),
            test_anomalous=len(self.anomalies),
            with_mask=self.with_mask,
            smallest=ordered[0] if ordered else None,
            largest=ordered[-1] if ordered else None,
        )

    def look(self, sample: Sample) -> None:
        try:
            image = self.dataset.read_image(sample)
        except FewShotError as error:
            self.found["error", "image cannot be read"].append(str(error))
            return
        self.sizes.add((image.shape[0], image.shape[1]))
        self.by_content[_content_digest(image)].append(sample)
        if isinstance(self.dataset, ImageFiles):
            self.modes[read_header(self.dataset.locate(sample.path)).mode] += 1
        if sample.is_anomalous:
            self._look_at_mask(sample)

    def _look_at_mask(self, sample: Sample) -> None:
        try:
            mask = self.dataset.read_mask(sample)
        except MaskSizeError as error:
            self.found["error", "mask of another size than its image"].append(str(error))
            return
        except FewShotError as error:
            self.found["error", "mask cannot be read"].append(str(error))
            return
        if mask is None:
            self.without_mask.append(sample.path)
            return
        self.with_mask += 1
        path = sample.mask_path or sample.path
        if not mask.any():
            self.found["warning", "empty mask of an anomaly"].append(path)
        if path.lower().endswith((".jpg", ".jpeg")):
            what = "mask with lossy compression: its noise counts as defect"
            self.found["warning", what].append(path)

    def findings(self) -> Iterator[Finding]:
        self._look_at_splits()
        self._look_at_missing_masks()
        if isinstance(self.dataset, ImageFiles) and self.samples:
            self._look_at_files(self.dataset)
        for (severity, what), details in self.found.items():
            yield Finding(severity, self.class_name, what, tuple(details))

    def _look_at_splits(self) -> None:
        if not self.samples:
            return  # the class as a whole has been reported
        if not self.train:
            self.found["warning", "no normal images in train: no support can be drawn"] = []
        if not self.anomalies:
            self.found["warning", "no anomalous image in test: nothing can be evaluated"] = []
        if len(self.anomalies) == len(self.test) > 0:
            self.found["warning", "no normal image in test: nothing can be evaluated"] = []

    def _look_at_missing_masks(self) -> None:
        if len(self.without_mask) == len(self.anomalies) > 0:
            self.found["note", "no masks at all: pixel metrics stay empty"] = []
        elif self.without_mask:
            self.found["warning", "anomaly without a mask"] = self.without_mask

    def _look_at_files(self, files: ImageFiles) -> None:
        for path in files.unused(self.class_name):
            if _is_mask_of_normal(path):
                self.found["warning", "mask for a normal image, ignored"].append(path)
            else:
                self.found["warning", "image that serves as neither sample nor mask"].append(path)
        expected = files.expected.get(self.class_name)
        counted = (len(self.train), len(self.test))
        if expected and counted != expected:
            what = f"{counted} images in train and test, {expected} expected"
            self.found["warning", what] = []


def _content_digest(image: UInt8[np.ndarray, "h w 3"]) -> str:
    shape = repr(image.shape).encode()
    return hashlib.sha256(shape + np.ascontiguousarray(image).tobytes()).hexdigest()


def _is_mask_of_normal(path: str) -> bool:
    parts = path.lower().split("/")
    return any(a == "ground_truth" and b in NORMAL_NAMES for a, b in pairwise(parts))


def _total(dataset: Dataset, scans: list[_Scan]) -> Iterator[Finding]:
    """Of a dataset that is there as a whole, and of which no counts of single classes are known."""
    if not isinstance(dataset, Published) or dataset.total is None:
        return
    counted = (sum(len(scan.train) for scan in scans), sum(len(scan.test) for scan in scans))
    if {*dataset.known_classes()} <= {*dataset.classes} and counted != dataset.total:
        what = f"{counted} images in train and test, {dataset.total} expected"
        yield Finding("warning", "all classes", what)


def _duplicates(scans: list[_Scan]) -> Iterator[Finding]:
    """Images of equal pixels, told once per class and per what it does to a result."""
    trains = {sample for scan in scans for sample in scan.train}
    copies: dict[str, list[Sample]] = defaultdict(list)
    for scan in scans:
        for content, samples in scan.by_content.items():
            copies[content].extend(samples)
    grouped: dict[tuple[str, Severity, str], list[str]] = defaultdict(list)
    for samples in copies.values():
        if len(samples) > 1:
            key = (samples[0].class_name, *_judge_copies(samples, trains))
            grouped[key].append(" = ".join(sample.path for sample in samples))
    for (class_name, severity, what), details in grouped.items():
        yield Finding(severity, class_name, what, tuple(details))


def _judge_copies(samples: list[Sample], trains: set[Sample]) -> tuple[Severity, str]:
    if len({sample.is_anomalous for sample in samples}) > 1:
        return "error", "same pixels as a normal and as an anomalous image"
    in_train = sum(sample in trains for sample in samples)
    if 0 < in_train < len(samples):
        return "error", "same pixels in train and test"
    if len({sample.class_name for sample in samples}) > 1:
        return "warning", "same pixels in several classes"
    return "warning", f"same pixels twice in {'train' if in_train else 'test'}"
