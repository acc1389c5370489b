"""Samples as tensors, decoded a little ahead of whoever computes on them."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from fewshot_ad.api import Dataset, FewShotError, LabelledBatch, Preprocess, Sample
from fewshot_ad.images import prepare, prepare_mask

WORKERS = 2
AHEAD = 16

S = TypeVar("S")
T = TypeVar("T")


def read_ahead(items: Iterable[S], read: Callable[[S], T]) -> Iterator[T]:
    """``read`` of every item, in order; a few threads keep a few results ready.

    Decoders and resizers leave the interpreter lock, so threads suffice.
    """
    pool = ThreadPoolExecutor(WORKERS)
    waiting: deque[Future[T]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(read, item))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` items, the last one shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def read_image(dataset: Dataset, sample: Sample) -> UInt8[np.ndarray, "height width 3"]:
    """The image of a sample.

    Raises:
        FewShotError: it cannot be read; names the file.
    """
    try:
        return dataset.read_image(sample)
    except FewShotError:
        raise
    except (OSError, ValueError, SyntaxError) as error:  # what decoders raise on broken files
        raise FewShotError(
            f"{dataset.name}: cannot read the image {sample.path} "
            f"({' '.join(str(error).split())}); mend or remove it."
        ) from error


def read_prepared(
    dataset: Dataset, sample: Sample, preprocess: Preprocess
) -> Float[Tensor, "3 h w"]:
    """The image of a sample as a method eats it."""
    return prepare(read_image(dataset, sample), preprocess)


def read_images(
    dataset: Dataset, samples: Sequence[Sample], preprocess: Preprocess
) -> Float[Tensor, "n 3 h w"]:
    """All images at once; none gives an empty tensor of the right size."""
    if not samples:
        return torch.empty(0, 3, preprocess.size, preprocess.size)
    return torch.stack([*read_ahead(samples, lambda s: read_prepared(dataset, s, preprocess))])


def read_labelled(
    dataset: Dataset, samples: Sequence[Sample], preprocess: Preprocess
) -> LabelledBatch:
    """All images at once with their ground truth; an anomaly without a mask has an empty one.

    Raises:
        FewShotError: an image or mask cannot be read, or the two differ in size.
    """
    pairs = [*read_ahead(samples, lambda sample: _read_pair(dataset, sample, preprocess))]
    return LabelledBatch(
        images=torch.stack([image for image, _ in pairs]),
        masks=torch.stack([mask for _, mask in pairs]),
        is_anomalous=torch.tensor([sample.is_anomalous for sample in samples]),
    )


def _read_pair(
    dataset: Dataset, sample: Sample, preprocess: Preprocess
) -> tuple[Float[Tensor, "3 h w"], Bool[Tensor, "h w"]]:
    image = read_image(dataset, sample)
    height, width = image.shape[:2]
    mask = dataset.read_mask(sample) if sample.is_anomalous else None
    if mask is None:
        mask = np.zeros((height, width), dtype=bool)
    if mask.shape != (height, width):
        raise FewShotError(
            f"{dataset.name}: the mask of {sample.path} is {mask.shape[1]}x{mask.shape[0]} pixels, "
            f"its image {width}x{height}; draw the mask on the image as it is stored."
        )
    return prepare(image, preprocess), prepare_mask(mask, preprocess)
