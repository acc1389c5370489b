"""How good ``tiny`` is: agreement with its teacher on drawn images, and detection on real ones."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import PCG64, Generator
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import Dataset, Preprocess, Sample
from fewshot_ad.images import prepare, prepare_mask

SHOTS, SEEDS, MOST_QUERIES = 4, 3, 60
GRID = 28  # positions of level 2 at 224 px
QUERY_ROWS, BANK_ROWS, NEAREST = 512, 4096, 10

Features = Callable[[Tensor], Sequence[Tensor]]


# ------------------------------------------------------------ agreement with the teacher


@dataclass(frozen=True)
class Agreement:
    """How one level of a student compares with the teacher's, over positions of unseen images.

    Attributes:
        cosine: mean cosine of the centred features.
        r2: share of the teacher's variance that is explained.
        same_nearest: share of positions whose nearest neighbour is the teacher's.
        near: share whose nearest neighbour is among the teacher's ten nearest.
    """

    cosine: float
    r2: float
    same_nearest: float
    near: float


def measure_agreement(found: Tensor, wanted: Tensor) -> Agreement:
    """Compare maps of one level, [b h w c] each; queries and bank come from different images."""
    mean = wanted.mean((0, 1, 2))
    cosine = functional.cosine_similarity(found - mean, wanted - mean, dim=-1).mean()
    r2 = 1 - (found - wanted).square().sum() / (wanted - mean).square().sum()
    half = len(wanted) // 2
    queries = sampled_rows(half * wanted[0, ..., 0].numel(), QUERY_ROWS, seed=0)
    bank = sampled_rows(half * wanted[0, ..., 0].numel(), BANK_ROWS, seed=1)

    def distances(maps: Tensor) -> Tensor:
        return torch.cdist(maps[:half].flatten(0, 2)[queries], maps[half:].flatten(0, 2)[bank])

    own = distances(found).argmin(1, keepdim=True)
    theirs = distances(wanted).topk(NEAREST, largest=False).indices
    same, near = (own == theirs[:, :1]).float().mean(), (own == theirs).any(1).float().mean()
    return Agreement(float(cosine), float(r2), float(same), float(near))


def sampled_rows(total: int, count: int, seed: int) -> Tensor:
    """Different row numbers, drawn by a seed."""
    drawn = Generator(PCG64(seed)).choice(total, min(count, total), replace=False)
    return torch.from_numpy(drawn)


def agreement_table(rows: dict[str, list[Agreement]]) -> str:
    """One line per network and level."""
    lines = [
        "| network | level | cosine | R2 | same nearest | among the teacher's ten |",
        "|---|---|---|---|---|---|",
    ]
    for name, levels in rows.items():
        for level, one in enumerate(levels, 1):
            values = (one.cosine, one.r2, one.same_nearest, one.near)
            shown = " | ".join(f"{value:.3f}" for value in values)
            lines.append(f"| {name} | {level} | {shown} |")
    return "\n".join(lines)


# ------------------------------------------------------------ few-shot detection


@dataclass(frozen=True)
class Detection:
    """Mean AUROC over the seeds for images and, where there are masks, for grid positions."""

    images: float
    positions: float | None


def measure_detection(dataset: Dataset, class_name: str, features: Features) -> Detection:
    """Distance to the nearest of four normal images' patches; the image score is the largest."""
    support = dataset.train(class_name)
    banks = []
    for seed in range(SEEDS):
        rows = Generator(PCG64(seed)).permutation(len(support))[:SHOTS]
        images = [prepare(dataset.read_image(support[row]), Preprocess()) for row in rows]
        banks.append(torch.cat([patches(features, image) for image in images]))
    queries = chosen_queries(dataset, class_name)
    scores = torch.empty(SEEDS, len(queries), GRID * GRID)
    truth = torch.zeros(len(queries), GRID * GRID, dtype=torch.bool)
    has_masks = True
    for row, sample in enumerate(queries):
        found = patches(features, prepare(dataset.read_image(sample), Preprocess()))
        for seed, bank in enumerate(banks):
            scores[seed, row] = torch.cdist(found, bank).amin(1)
        mask = dataset.read_mask(sample)
        if mask is None:
            has_masks = False
        else:
            square = prepare_mask(mask, Preprocess()).float()
            truth[row] = functional.adaptive_max_pool2d(square[None], GRID).flatten() > 0
    labels = [sample.is_anomalous for sample in queries]
    by_image = [roc_auc_score(labels, one.amax(1)) for one in scores]
    by_position = [roc_auc_score(truth.flatten(), one.flatten()) for one in scores if has_masks]
    return Detection(float(np.mean(by_image)), float(np.mean(by_position)) if has_masks else None)


def chosen_queries(dataset: Dataset, class_name: str) -> list[Sample]:
    """At most 60 normal and 60 anomalous test images, drawn by a seed."""
    samples = dataset.test(class_name)
    kinds = ([s for s in samples if s.is_anomalous == wanted] for wanted in (False, True))
    drawn = Generator(PCG64(7))
    return [kind[row] for kind in kinds for row in drawn.permutation(len(kind))[:MOST_QUERIES]]


def patches(features: Features, image: Tensor) -> Tensor:
    """Levels 2 and 3 at the grid of level 2, each averaged over 3x3 neighbours, [grid*grid c]."""
    levels = [functional.avg_pool2d(level, 3, 1, 1) for level in features(image[None])[1:]]
    resized = [functional.interpolate(level, size=GRID, mode="bilinear") for level in levels]
    return torch.cat(resized, 1)[0].flatten(1).T.contiguous()


def detection_table(dataset: Dataset, networks: dict[str, Features]) -> str:
    """One line per class, image / position AUROC of every network, and the means."""
    head = "| class | " + " | ".join(networks) + " |"
    lines = [head, "|---" * (len(networks) + 1) + "|"]
    found: dict[str, list[Detection]] = {name: [] for name in networks}
    for class_name in dataset.classes:
        for name, features in networks.items():
            found[name].append(measure_detection(dataset, class_name, features))
            print(class_name, name, found[name][-1], flush=True)
        lines.append(f"| {class_name} | {' | '.join(shown(found[n][-1]) for n in networks)} |")
    lines.append(f"| mean | {' | '.join(shown(mean_of(found[n])) for n in networks)} |")
    return "\n".join(lines)


def mean_of(rows: Sequence[Detection]) -> Detection:
    """Mean over classes; classes without masks do not count for positions."""
    positions = [row.positions for row in rows if row.positions is not None]
    mean_positions = float(np.mean(positions)) if positions else None
    return Detection(float(np.mean([row.images for row in rows])), mean_positions)


def shown(one: Detection) -> str:
    """Three digits."""
    return f"{one.images:.3f} / " + ("-" if one.positions is None else f"{one.positions:.3f}")


# ------------------------------------------------------------ speed


def images_per_cpu_second(features: Features, count: int = 40) -> float:
    """Images of 224 px for one second of one core, whatever else the machine does."""
    image = torch.zeros(1, 3, 224, 224)
    features(image)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.process_time()
    for _ in range(count):
        features(image)
    spent = time.process_time() - started
    torch.set_num_threads(threads)
    return count / spent


# ------------------------------------------------------------ the page

PAGE = """# The embedded backbone `tiny`

Written by `python experiments/distil_tiny.py --report`; do not edit by hand.

`tiny` is a residual network of our own: {parameters:.2f} million weights, {size:.1f} MB as
float16, digest `{digest}`. It was trained from scratch to imitate `{teacher}`, an ImageNet
network, on images drawn by `experiments/drawn_images.py`; the student itself saw no photograph.
Each level imitates the principal components of one teacher level (they keep {kept} of
the variance), scaled to unit total variance.

    T=path/to/{teacher}
    python experiments/distil_tiny.py --teacher $T --images {images} --minutes {minutes:.0f}
    python experiments/distil_tiny.py --teacher $T --images {images} --report --data {data}

{images} drawn images, {steps} steps of {batch} images in {minutes:.0f} minutes on one
busy core, after the teacher's targets were made. The budget is wall time, so a second
training gives other weights of
the same kind. At 224 px, one second of one core is enough for {speed:.0f} images (the teacher:
{teacher_speed:.0f}).

## Agreement with the teacher

On {held_out} drawn images that were never trained on, against the compressed teacher. *Same
nearest*: the nearest neighbour of a position, among {bank} positions of other images, is
the teacher's own;
*among the teacher's ten*: it is one of the teacher's ten nearest.

{agreement}

## Few-shot detection on real images

Distance to the nearest patch of {shots} normal images: levels 2 and 3, 3x3 average, 224 px; the
image score is the largest distance. Image AUROC / AUROC of the positions of the {grid}x{grid} grid
(a position is anomalous when the mask touches it), mean over {seeds} seeds of the support, at most
{queries} normal and {queries} anomalous test images of each class. *Compressed* is the teacher
after the principal components, which is what the student imitates.

{detection}
"""


def page(agreement: str, detection: str, **facts: object) -> str:
    """The report as Markdown."""
    return PAGE.format(
        agreement=agreement,
        detection=detection,
        shots=SHOTS,
        seeds=SEEDS,
        queries=MOST_QUERIES,
        grid=GRID,
        bank=BANK_ROWS,
        **facts,
    )
