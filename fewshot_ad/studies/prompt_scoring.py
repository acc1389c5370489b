"""One class as embeddings, so that prompts are judged on it at the price of products of matrices.

Each image is embedded once, each sentence once. This is WinCLIP without a support: what shown
images add is the same under every prompt.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_ad.api import Dataset, Episode, FewShotError, Method, Preprocess
from fewshot_ad.evaluation.aupro import PreparedTruth, prepare_truth
from fewshot_ad.evaluation.known import KnownImages
from fewshot_ad.evaluation.metrics import (
    IMAGE_METRICS,
    PIXEL_METRICS,
    image_metrics,
    pixel_metrics,
)
from fewshot_ad.evaluation.queries import Query
from fewshot_ad.images import EvalSize, align_map, align_mask
from fewshot_ad.methods.winclip import WinClip
from fewshot_ad.parts.clip import Clip, load_clip
from fewshot_ad.parts.maps import upsample_maps
from fewshot_ad.parts.windows import anomaly_probability, window_map
from fewshot_ad.prompts import PromptSet

BATCH_SIZE = 8
QUICK_SIZE = 64
"""Where variants are ranked, a sixteenth of the evaluator's pixels will do, and sort faster."""

Align = Callable[[Float[Tensor, "n h w"]], Iterator[Float[np.ndarray, "_ _"]]]


@dataclass(frozen=True, eq=False)
class EmbeddedClass:
    """The images of one class as embeddings, with their truth.

    Attributes:
        name: of the class.
        method: how sentences become prototypes, and scores maps.
        levels: image embeddings, and window embeddings per side where a map is judged.
        is_anomalous: of every image.
        truth: the masks, prepared; None where only images are judged.
        align: brings maps into the frame of the truth.
    """

    name: str
    method: WinClip
    levels: tuple[Float[Tensor, "n d _ _"], ...]
    is_anomalous: Bool[np.ndarray, " n"]
    truth: PreparedTruth | None
    align: Align

    def image_scores(self, prompts: PromptSet) -> Float[Tensor, " n"]:
        """The anomaly probability of every image under a prompt set (WinCLIP, equation 1)."""
        prototypes = self.method.embed_prompts(prompts, self.name)
        return self._image_scores(prototypes.to(self.levels[0].device)).cpu()

    def anomaly_maps(self, prompts: PromptSet) -> Float[Tensor, "n h w"]:
        """The map of every image, at the size of the images (equation 5)."""
        image, *windows = self.levels
        prototypes = self.method.embed_prompts(prompts, self.name).to(image.device)
        scores = self._image_scores(prototypes) if self.method.image_scale else None
        temperature, sides = self.method.temperature, self.method.windows
        maps = window_map(windows, sides, prototypes, temperature, scores)
        side = self.method.preprocess.size
        return upsample_maps(maps, (side, side)).cpu()

    def measure(self, prompts: PromptSet, metric: str) -> float:
        """One metric under a prompt set, in [0, 1].

        Raises:
            FewShotError: the class has no value of this metric; says why.
        """
        if metric in IMAGE_METRICS:
            found = image_metrics(self.image_scores(prompts).numpy(), self.is_anomalous)
        else:
            assert self.truth is not None
            found = pixel_metrics([*self.align(self.anomaly_maps(prompts))], self.truth)
        value = found.values()[metric]
        if value is None:
            raise FewShotError(
                f"{self.name} has no {metric}: {found.reasons[metric]}; choose another metric or "
                "leave the class out"
            )
        return value

    def _image_scores(self, prototypes: Float[Tensor, "2 d"]) -> Float[Tensor, " n"]:
        return anomaly_probability(self.levels[0], prototypes, self.method.temperature)[:, 0, 0]


def embed_query(
    method: WinClip,
    dataset: Dataset,
    episode: Episode,
    metric: str,
    eval_size: EvalSize = QUICK_SIZE,
) -> EmbeddedClass:
    """The query of an episode, embedded for a metric."""
    query = Query(dataset, episode.query, method.preprocess, eval_size)
    levels = _embed(method, query.batches(BATCH_SIZE), metric)
    truth = query.truth if metric in PIXEL_METRICS else None
    return EmbeddedClass(
        episode.target_class, method, levels, query.is_anomalous, truth, query.align
    )


def embed_known(
    method: WinClip,
    known: KnownImages,
    name: str,
    metric: str,
    eval_size: EvalSize = QUICK_SIZE,
) -> EmbeddedClass:
    """The labelled images of a known class, embedded for a metric; masks are as prepared."""
    batches = [*known.labelled(name, method.preprocess)]
    levels = _embed(method, (batch.images for batch in batches), metric)
    is_anomalous = torch.cat([batch.is_anomalous for batch in batches]).numpy()
    side = method.preprocess.size

    def align(maps: Float[Tensor, "n h w"]) -> Iterator[Float[np.ndarray, "_ _"]]:
        for one in maps.numpy():
            yield align_map(one, Preprocess(side), (side, side), eval_size)

    truth = None
    if metric in PIXEL_METRICS:
        masks = (mask.numpy() for batch in batches for mask in batch.masks)
        truth = prepare_truth([align_mask(mask, eval_size) for mask in masks])
    class_name = name.rpartition("/")[2]
    return EmbeddedClass(class_name, method, levels, is_anomalous, truth, align)


def text_method(method: Method) -> WinClip:
    """The method of a study of prompts.

    Raises:
        FewShotError: it is not WinCLIP, or cuts images into tiles.
    """
    if not isinstance(method, WinClip):
        raise FewShotError(f"this study of prompts runs on winclip, not on {type(method).__name__}")
    if method.tile is not None:
        raise FewShotError("a study of prompts takes images whole: leave out --set tile=...")
    return replace(method)


def clip_of(method: WinClip) -> Clip:
    """Both towers of a method.

    Raises:
        FewShotError: the weights are not on this machine; says what to fetch.
    """
    return load_clip(
        method.backbone,
        method.preprocess.size,
        resize_positions=method.resize_positions,
        weights_dir=None if method.weights_dir is None else Path(method.weights_dir),
        device=method.device,
    )


def _embed(
    method: WinClip, batches: Iterable[Float[Tensor, "b 3 h w"]], metric: str
) -> tuple[Float[Tensor, "n d _ _"], ...]:
    """Image embeddings, and windows only where the metric is of pixels: they are the dear part."""
    clip = clip_of(method)
    sides = method.windows if metric in PIXEL_METRICS else ()
    features = clip.features(sides, method.window_pool, method.patch_block, method.normed_patches)
    embedded = [features(images)[:-1] for images in batches]  # the last are patches, for a support
    return tuple(torch.cat(level) for level in zip(*embedded, strict=True))
