"""The one place where labels and masks meet predictions."""

import time
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.api import Dataset, Episode, FewShotError, Method, Prediction, Sample, Support
from fewshot_ad.evaluation.boxes import box_ap
from fewshot_ad.evaluation.curves import Curve
from fewshot_ad.evaluation.defect_kinds import KindMetrics, kind_metrics
from fewshot_ad.evaluation.identity import cell_of, method_name, preset_of
from fewshot_ad.evaluation.leaks import (
    KnownNames,
    check_leaks,
    image_digests,
    seen_by,
    warn_of_repeats,
)
from fewshot_ad.evaluation.map_room import room_for_maps
from fewshot_ad.evaluation.metrics import Metrics, image_metrics, pixel_metrics
from fewshot_ad.evaluation.provenance import provenance
from fewshot_ad.evaluation.queries import Query
from fewshot_ad.evaluation.reading import read_images, read_labelled
from fewshot_ad.evaluation.results import Cell, ResultRow, row_key
from fewshot_ad.evaluation.streaming import StreamingPixelMetrics
from fewshot_ad.images import EvalSize

EXACT_PIXELS = 2**28  # ranking more takes several gigabytes

OnImage = Callable[[Sample, Float[Tensor, ""], Float[Tensor, "h w"]], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A result row with what it was computed from; maps have the size the method works at.

    ``curves`` are those behind the metrics of the row, see ``curves.CURVES``.
    """

    row: ResultRow
    episode: Episode
    prediction: Prediction
    curves: Mapping[str, Curve] = field(default_factory=dict[str, Curve])


def evaluate(
    method: Method,
    dataset: Dataset,
    episodes: Iterable[Episode],
    *,
    eval_size: EvalSize = 256,
    known: KnownNames | None = None,
    batch_size: int = 8,
    extra: Mapping[str, Any] | None = None,
    on_image: OnImage | None = None,
    skip: Container[str] = (),
    boxes: bool = False,
) -> Iterator[Outcome]:
    """Run the episodes one after another; query images and truth are read once per class.

    So keep the episodes of a class together. Raw scores go to the metrics.

    Args:
        method: what is judged; a meta-trained one must be trained or loaded already.
        dataset: where the episodes come from.
        episodes: the trials.
        eval_size: side in pixels at which maps meet masks, or ``native``.
        known: the classes of meta-training; by default those the method remembers (``seen_by``).
        batch_size: images per ``predict``; a method of track ``batched`` gets all at once.
        extra: labels of the caller for the row.
        on_image: told of every judged image: sample, image score, anomaly map.
        skip: row keys of finished cells, which are left out.
        boxes: whether to judge boxes too, see ``boxes.box_average_precision``.

    Raises:
        FewShotError: too few shots for the method, a leak (see ``check_leaks``), an unreadable
            image, or predictions of the wrong shape or not finite.
    """
    known = known or seen_by(method)
    query = None
    for episode in episodes:
        _check_fits(method, dataset, episode)
        if query is None or query.samples != episode.query:
            query = Query(dataset, episode.query, method.preprocess, eval_size)
        cell = cell_of(
            method,
            dataset,
            episode,
            eval_size=eval_size,
            known=known,
            extra=extra,
            query_digest=query.digest,
        )
        if row_key(cell) not in skip:
            _check_content(dataset, episode, query, known)
            outcome = _run(method, dataset, episode, query, cell, batch_size, on_image)
            yield _with_boxes(outcome, query) if boxes else outcome


def _with_boxes(outcome: Outcome, query: Query) -> Outcome:
    row = outcome.row
    found = box_ap(query.align(outcome.prediction.anomaly_map), query.boxes)
    if found is None:
        why = "a mask is missing" if row.n_missing_masks else "there is no anomalous pixel"
        row = replace(row, reasons={**row.reasons, "box_ap": why})
    return replace(outcome, row=replace(row, box_ap=found))


def _check_fits(method: Method, dataset: Dataset, episode: Episode) -> None:
    if episode.dataset != dataset.name:
        raise FewShotError(
            f"the episode is of dataset {episode.dataset!r}, the images of {dataset.name!r}; "
            "choose the dataset that the episode was made for."
        )
    if episode.shots < method.min_shots:
        raise FewShotError(
            f"{method_name(method)} needs at least {method.min_shots} normal images of the target "
            f"class, the episode has {episode.shots}; ask for --shots {method.min_shots} or more."
        )
    if not episode.query:
        raise FewShotError(
            f"{episode.dataset}/{episode.target_class} has no test images; nothing can be judged."
        )


def _check_content(
    dataset: Dataset, episode: Episode, query: Query, known: KnownNames | None
) -> None:
    shown = episode.support + episode.anomalous_support
    digests = query.digests | image_digests(dataset, shown)
    if known is not None:
        check_leaks(episode, digests, known)
    warn_of_repeats(episode, digests)


def _run(
    method: Method,
    dataset: Dataset,
    episode: Episode,
    query: Query,
    cell: Cell,
    batch_size: int,
    on_image: OnImage | None,
) -> Outcome:
    truth = query.truth  # read before the clocks start
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    support = _read_support(dataset, episode, method)
    began = _now()
    method.fit(support)
    fit_seconds = _now() - began
    prediction, predict_seconds = _predict(method, query, batch_size, on_image)
    began = _now()
    metrics = _measure(prediction, query, f"{episode.dataset}/{episode.target_class}")
    metric_seconds = _now() - began
    kinds = _measure_kinds(prediction, query, episode)
    _warn_of_empty(metrics, f"{episode.dataset}/{episode.target_class}")
    n_anomalous = int(query.is_anomalous.sum())
    row = ResultRow(
        **asdict(cell),
        **metrics.values(),
        reasons=metrics.reasons,
        preset=preset_of(method),
        kinds={name: dict(kind) for name, kind in kinds.items()},
        n_normal=len(query.samples) - n_anomalous,
        n_anomalous=n_anomalous,
        n_missing_masks=truth.n_missing,
        fit_seconds=fit_seconds,
        predict_seconds_per_image=predict_seconds / len(query.samples),
        metric_seconds=metric_seconds,
        **provenance(method.device),
    )
    return Outcome(row, episode, prediction, metrics.curves)


def _read_support(dataset: Dataset, episode: Episode, method: Method) -> Support:
    images = read_images(dataset, episode.support, method.preprocess)
    anomalous = None
    if episode.anomalous_support:
        anomalous = read_labelled(dataset, episode.anomalous_support, method.preprocess)
    return Support(episode.target_class, images, anomalous)


def _predict(
    method: Method, query: Query, batch_size: int, on_image: OnImage | None
) -> tuple[Prediction, float]:
    """All predictions on the CPU, and the seconds spent in ``predict``."""
    n = len(query.samples)
    side = method.preprocess.size
    scores, maps = torch.empty(n), room_for_maps(n, side)
    seconds, start = 0.0, 0
    for images in query.batches(n if method.track == "batched" else batch_size):
        began = _now()
        part = method.predict(images)
        seconds += _now() - began
        _check_prediction(method, part, images)
        places = slice(start, start + len(images))
        scores[places], maps[places] = part.image_score, part.anomaly_map
        start += len(images)
        if on_image is not None:
            for each in zip(query.samples[places], scores[places], maps[places], strict=True):
                on_image(*each)
    prediction = Prediction(scores, maps)
    _check_finite(method, prediction, query.samples)
    return prediction, seconds


def _check_prediction(
    method: Method, prediction: Prediction, images: Float[Tensor, "b 3 h w"]
) -> None:
    n, _, height, width = images.shape
    found = tuple(prediction.image_score.shape), tuple(prediction.anomaly_map.shape)
    if found != ((n,), (n, height, width)):
        raise FewShotError(
            f"{method_name(method)} returned image scores of shape {found[0]} and maps of shape "
            f"{found[1]}; expected {(n,)} and {(n, height, width)}."
        )


def _check_finite(method: Method, prediction: Prediction, samples: tuple[Sample, ...]) -> None:
    # Map by map: what torch makes to look at all of them at once is larger than they are.
    judged = zip(samples, prediction.image_score, prediction.anomaly_map, strict=True)
    bad = [
        sample.path
        for sample, score, one in judged
        if not (score.isfinite() and one.isfinite().all())
    ]
    if bad:
        raise FewShotError(
            f"{method_name(method)} gave NaN or infinite scores for {len(bad)} of {len(samples)} "
            f"images, first for {bad[0]}; check its weights and parameters."
        )


def _measure(prediction: Prediction, query: Query, target: str) -> Metrics:
    of_images = image_metrics(prediction.image_score.numpy(), query.is_anomalous)
    aligned = query.align(prediction.anomaly_map)
    if query.truth.n_pixels <= EXACT_PIXELS:
        return of_images | pixel_metrics([*aligned], query.truth)
    streaming = StreamingPixelMetrics()
    for one, mask in zip(aligned, query.masks(), strict=True):
        streaming.update([one], [mask])
    worst = max(streaming.error_bounds().values(), default=0.0)
    warnings.warn(
        f"{target}: {query.truth.n_pixels / 1e6:.0f} million pixels are too many to sort; pixel "
        f"metrics come from a histogram and are off by {worst:.1g} at most.",
        stacklevel=4,
    )
    return of_images | streaming.result()


def _measure_kinds(
    prediction: Prediction, query: Query, episode: Episode
) -> Mapping[str, KindMetrics]:
    """Of pixels only where kinds were shown, and not where these are too many to sort."""
    has_pixels = bool(episode.anomalous_support) and query.truth.n_pixels <= EXACT_PIXELS
    maps = [*query.align(prediction.anomaly_map)] if has_pixels else None
    return kind_metrics(prediction.image_score.numpy(), maps, query, episode.anomalous_support)


def _warn_of_empty(metrics: Metrics, target: str) -> None:
    for reason in dict.fromkeys(metrics.reasons.values()):
        empty = [name for name, why in metrics.reasons.items() if why == reason]
        warnings.warn(f"{target}: {', '.join(empty)} left empty: {reason}.", stacklevel=4)


def _now() -> float:
    """Seconds, after all that the GPU still has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
