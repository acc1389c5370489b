"""Which kind of defect is it? A linear probe on pooled features of a frozen backbone.

K labelled anomalies of every kind teach a multinomial logistic regression; the others are told
apart by it. It says whether features hold the kind at all, and is no detector: normal images take
no part.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from fewshot_ad.api import Dataset, FewShotError, Preprocess, Sample
from fewshot_ad.evaluation.reading import batched, read_labelled
from fewshot_ad.parts.feature_cache import FeatureCache
from fewshot_ad.parts.maps import mask_to_grid
from fewshot_ad.parts.patches import join_levels

Pool = Literal["image", "mask"]
BATCH = 8


@dataclass(frozen=True)
class ProbeResult:
    """What a probe told of the anomalies that it had not learned from.

    Attributes:
        kinds: in the order of the rows and columns of the confusion.
        accuracy: share that was told right, of each seed.
        balanced_accuracy: mean of that share over the kinds, of each seed.
        confusion: counts over all seeds; rows are the truth.
    """

    kinds: tuple[str, ...]
    accuracy: tuple[float, ...]
    balanced_accuracy: tuple[float, ...]
    confusion: Int[np.ndarray, "k k"]

    @property
    def chance(self) -> float:
        """Balanced accuracy of a guess."""
        return 1 / len(self.kinds)


def probe_kinds(
    dataset: Dataset,
    target_class: str,
    features: FeatureCache,
    preprocess: Preprocess,
    *,
    per_kind: int = 4,
    seeds: int = 5,
    pool: Pool = "image",
) -> ProbeResult:
    """Learn the kinds from a few anomalies of each, and tell the others.

    Args:
        dataset: where the anomalies come from.
        target_class: whose test anomalies are used; those without a kind are left out.
        features: of a frozen backbone.
        preprocess: how images become tensors.
        per_kind: anomalies of each kind that are learned from.
        seeds: how many draws of these.
        pool: mean and maximum over the whole ``image``, or over the defect by its ``mask``.

    Raises:
        FewShotError: fewer than two kinds have more anomalies than are learned from, or a mask is
            asked for and missing.
    """
    samples = _usable(dataset, target_class, per_kind, pool)
    kinds = sorted({str(sample.defect) for sample in samples})
    truth = np.array([kinds.index(str(sample.defect)) for sample in samples])
    vectors = _pooled(dataset, samples, features, preprocess, pool)
    confusion = np.zeros((len(kinds), len(kinds)), np.int64)
    accuracy: list[float] = []
    balanced: list[float] = []
    for seed in range(seeds):
        taught = _drawn(truth, per_kind, seed)
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
        probe.fit(vectors[taught], truth[taught])
        told = np.asarray(probe.predict(vectors[~taught]))
        counts = np.zeros_like(confusion)
        np.add.at(counts, (truth[~taught], told), 1)
        accuracy.append(float(np.trace(counts) / counts.sum()))
        balanced.append(float((np.diag(counts) / counts.sum(axis=1)).mean()))
        confusion += counts
    return ProbeResult(tuple(kinds), tuple(accuracy), tuple(balanced), confusion)


def _usable(dataset: Dataset, target_class: str, per_kind: int, pool: Pool) -> list[Sample]:
    """The anomalies of kinds of which some are left to be told."""
    of_kind: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in dataset.test(target_class):
        if sample.is_anomalous and sample.defect:
            of_kind[sample.defect].append(sample)
    counts = ", ".join(f"{kind} {len(samples)}" for kind, samples in sorted(of_kind.items()))
    enough = [samples for samples in of_kind.values() if len(samples) > per_kind]
    if len(enough) < 2:
        raise FewShotError(
            f"{dataset.name}/{target_class} has anomalies of these kinds: {counts or 'none'}; "
            f"expected two kinds with more than {per_kind}: give a smaller --per-kind"
        )
    chosen = [sample for samples in enough for sample in samples]
    without = [sample.path for sample in chosen if dataset.read_mask(sample) is None]
    if pool == "mask" and without:
        raise FewShotError(
            f"{len(without)} anomalies have no mask, first {without[0]}: take --pool image"
        )
    return chosen


def _drawn(truth: Int[np.ndarray, " n"], per_kind: int, seed: int) -> Bool[np.ndarray, " n"]:
    generator = np.random.Generator(np.random.PCG64(seed))
    taught = np.zeros(len(truth), dtype=bool)
    for kind in np.unique(truth):
        taught[generator.permutation(np.flatnonzero(truth == kind))[:per_kind]] = True
    return taught


def _pooled(
    dataset: Dataset,
    samples: Sequence[Sample],
    features: FeatureCache,
    preprocess: Preprocess,
    pool: Pool,
) -> Float[np.ndarray, "n d"]:
    rows: list[Tensor] = []
    for some in batched(samples, BATCH):
        labelled = read_labelled(dataset, some, preprocess)
        for image, mask in zip(labelled.images, labelled.masks, strict=True):
            maps = join_levels(features(image[None])).cpu()
            grid = (maps.shape[2], maps.shape[3])
            cells = mask_to_grid(mask[None], grid)[0] if pool == "mask" else torch.ones(grid) > 0
            values = maps[0][:, cells]
            rows.append(torch.cat([values.mean(dim=1), values.amax(dim=1)]))
    return torch.stack(rows).double().numpy()
