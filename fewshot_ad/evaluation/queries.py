"""The query images and the ground truth of a class, read once for all its episodes."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor, stack

from fewshot_ad.api import Dataset, Preprocess, Sample
from fewshot_ad.episodes import digest_samples
from fewshot_ad.evaluation.aupro import PreparedTruth, prepare_truth
from fewshot_ad.evaluation.boxes import Box, mask_boxes
from fewshot_ad.evaluation.leaks import image_digests
from fewshot_ad.evaluation.reading import batched, read_ahead, read_prepared
from fewshot_ad.images import EvalSize, align_map, align_mask

KEPT_BYTES = 512 * 2**20


class Query:
    """What is judged: images as a method eats them, and the truth at the size of the comparison.

    Prepared images are kept between episodes while all of them together stay below ``KEPT_BYTES``;
    those of a larger class are decoded again, a batch at a time.
    """

    def __init__(
        self,
        dataset: Dataset,
        samples: tuple[Sample, ...],
        preprocess: Preprocess,
        eval_size: EvalSize,
    ) -> None:
        self.samples = samples
        self.is_anomalous = np.array([sample.is_anomalous for sample in samples], dtype=bool)
        self._dataset = dataset
        self._preprocess = preprocess
        self._eval_size: EvalSize = eval_size
        self._is_kept = len(samples) * 3 * preprocess.size**2 * 4 <= KEPT_BYTES
        self._kept: list[Tensor] = []

    def batches(self, batch_size: int) -> Iterator[Float[Tensor, "b 3 h w"]]:
        """The images in order.

        Raises:
            FewShotError: an image cannot be read; names the file.
        """
        for batch in batched(self._images(), batch_size):
            yield stack(batch)

    @cached_property
    def digests(self) -> dict[Sample, str]:
        """The content of every image."""
        return image_digests(self._dataset, self.samples)

    @cached_property
    def digest(self) -> str:
        """The content of all images together."""
        return digest_samples(self._dataset, self.samples)

    @property
    def truth(self) -> PreparedTruth:
        """The masks, ready for the metrics."""
        return self._truth_and_sizes[0]

    def align(self, maps: Float[Tensor, "n h w"]) -> Iterator[Float[np.ndarray, "_ _"]]:
        """Anomaly maps in the frame of the truth; one without truth stays as it is."""
        for one, size in zip(maps.numpy(), self._truth_and_sizes[1], strict=True):
            is_judged = size is not None
            yield align_map(one, self._preprocess, size, self._eval_size) if is_judged else one

    @cached_property
    def boxes(self) -> list[list[Box]] | None:
        """A box around every defect of every image; None where a mask is missing."""
        masks = [*self.masks()]
        known = [mask for mask in masks if mask is not None]
        return [mask_boxes(mask) for mask in known] if len(known) == len(masks) else None

    def masks(self) -> Iterator[Bool[np.ndarray, "_ _"] | None]:
        """The masks in the same frame, one after another, for truth that is too much at once."""
        for mask, _ in read_ahead(self.samples, self._mask_and_size):
            yield mask

    def _images(self) -> Iterator[Float[Tensor, "3 h w"]]:
        if len(self._kept) == len(self.samples):
            yield from self._kept
            return
        read: list[Tensor] = []
        for image in read_ahead(self.samples, self._prepared):
            if self._is_kept:
                read.append(image)
            yield image
        self._kept = read

    def _prepared(self, sample: Sample) -> Float[Tensor, "3 h w"]:
        return read_prepared(self._dataset, sample, self._preprocess)

    @cached_property
    def _truth_and_sizes(self) -> tuple[PreparedTruth, Sequence[tuple[int, int] | None]]:
        """The truth, and the native (height, width) of every image that has one."""
        sizes: list[tuple[int, int] | None] = []

        def masks() -> Iterator[Bool[np.ndarray, "_ _"] | None]:
            for mask, size in read_ahead(self.samples, self._mask_and_size):
                sizes.append(size)
                yield mask

        return prepare_truth(masks()), sizes

    def _mask_and_size(
        self, sample: Sample
    ) -> tuple[Bool[np.ndarray, "e f"] | None, tuple[int, int] | None]:
        mask = self._dataset.read_mask(sample)
        if mask is None:
            return None, None
        height, width = mask.shape
        return align_mask(mask, self._eval_size), (height, width)
