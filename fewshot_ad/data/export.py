"""Writes any dataset as a folder in the layout of MVTec AD."""

import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Bool, UInt8

from fewshot_ad.api import Dataset, FewShotError, Sample
from fewshot_ad.image_files import write_image

__all__ = ["export"]

Progress = Callable[[int, int], None]


def export(dataset: Dataset, out: Path, progress: Progress | None = None) -> int:
    """Write every class as PNG, all of it or nothing; ``progress`` is called with (done, in all).

    Images keep their stems, so that a manifest of one dataset can be read beside the other.

    Returns:
        The number of images, masks not counted.

    Raises:
        FewShotError: ``out`` holds something already or cannot be written, or an image cannot be
            read.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise FewShotError(f"{out} exists and is not an empty folder; choose another place")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
            staged = Path(scratch) / out.name
            written = _write_classes(dataset, staged, progress)
            staged.replace(out)
    except OSError as error:
        raise FewShotError(f"cannot write {out}: {error}; choose another place") from error
    return written


def _write_classes(dataset: Dataset, root: Path, progress: Progress | None) -> int:
    planned = [
        (split, sample)
        for name in dataset.classes
        for split, samples in (("train", dataset.train(name)), ("test", dataset.test(name)))
        for sample in samples
    ]
    taken: set[str] = set()
    for done, (split, sample) in enumerate(planned, start=1):
        _write_sample(dataset, sample, split, root, taken)
        if progress:
            progress(done, len(planned))
    return len(planned)


def _write_sample(
    dataset: Dataset, sample: Sample, split: str, root: Path, taken: set[str]
) -> None:
    kind = (sample.defect or "defect") if sample.is_anomalous else "good"
    stem = _free_stem(f"{sample.class_name}/{split}/{kind}", PurePosixPath(sample.path).stem, taken)
    folder = root / sample.class_name
    _write(folder / split / kind / f"{stem}.png", dataset.read_image(sample))
    mask = dataset.read_mask(sample) if sample.is_anomalous else None
    if mask is not None:
        _write(folder / "ground_truth" / kind / f"{stem}_mask.png", mask)


def _free_stem(folder: str, stem: str, taken: set[str]) -> str:
    """The stem, numbered when another image has it: 000.png and 000.jpg would become one file."""
    free, number = stem, 1
    while f"{folder}/{free}".lower() in taken:
        number += 1
        free = f"{stem}_{number}"
    taken.add(f"{folder}/{free}".lower())
    return free


def _write(path: Path, pixels: UInt8[np.ndarray, "h w 3"] | Bool[np.ndarray, "h w"]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, pixels)
