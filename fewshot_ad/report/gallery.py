"""Pictures of a page: per class the image that was judged best, worst, and most in dispute.

Every method has one colour scale for all of its pictures, whatever image or class, so that calm
maps look calm. Pictures come from the evidence that was kept with the rows, seed by seed the first.
"""

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from fewshot_ad.api import FewShotError
from fewshot_ad.evaluation.evidence import SIDE, Evidence, Picture
from fewshot_ad.evaluation.examples import Scale
from fewshot_ad.images import heat_colours, overlay

MOST_CLASSES, MOST_ENTRANTS = 6, 6
KINDS = {
    "best": "Found most surely",
    "worst": "Hardest",
    "disputed": "In dispute",
}


@dataclass(frozen=True, slots=True)
class Judged:
    """What one entrant has kept of a class; ``anchor`` is where the row stands on the page."""

    label: str
    target: str
    anchor: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Tile:
    """One method's view of an image: its map alone and over the image, and how the image ranks."""

    label: str
    heat: str
    overlay: str
    words: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Figure:
    """One image as it is, with its truth, and as the methods see it; pictures are data URIs."""

    title: str
    target: str
    path: str
    words: str
    image: str
    truth: str
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """Figures, and the colour scale of every method; empty where nothing was kept."""

    figures: tuple[Figure, ...]
    scales: tuple[tuple[str, str, str], ...]


def gallery(judged: Sequence[Judged]) -> Gallery:
    """The figures of a few classes, those most in dispute first."""
    labels = list(dict.fromkeys(one.label for one in judged))[:MOST_ENTRANTS]
    shown = [one for one in judged if one.label in labels and one.evidence.pictures]
    scales = {label: _scale(one.evidence.scale for one in shown if one.label == label)
              for label in labels if any(one.label == label for one in shown)}  # fmt: skip
    by_class = {name: [one for one in shown if one.target == name]
                for name in dict.fromkeys(one.target for one in shown)}  # fmt: skip
    chosen = {name: _Choice(rivals) for name, rivals in by_class.items()}
    ordered = sorted(chosen, key=lambda name: -chosen[name].dispute)[:MOST_CLASSES]
    figures = [
        figure
        for name in ordered
        for kind, index in chosen[name].picks().items()
        if (figure := _figure(kind, index, by_class[name], scales)) is not None
    ]
    words = [(label, f"{s.low:.4g}", f"{s.high:.4g}") for label, s in scales.items()]
    return Gallery(tuple(figures), tuple(words))


class _Choice:
    """Which images of a class to show, by the share of rivals of the other kind in wrong order."""

    def __init__(self, rivals: Sequence[Judged]) -> None:
        self._rivals = rivals
        self._paths = [one.path for one in rivals[0].evidence.images]
        same = [r for r in rivals if [one.path for one in r.evidence.images] == self._paths]
        self._errors = np.stack([errors(one.evidence) for one in same])
        pictured = [p.index for r in same for p in r.evidence.pictures]
        most = max((pictured.count(index) for index in pictured), default=0)
        self._shown = sorted({i for i in pictured if pictured.count(i) >= min(most, len(same))})
        self._is_anomalous = [one.is_anomalous for one in rivals[0].evidence.images]
        self._several = len(same) > 1

    @property
    def dispute(self) -> float:
        """How far the methods are apart on the image in dispute."""
        return max((float(self._errors[:, i].std()) for i in self._shown), default=0.0)

    def picks(self) -> dict[str, int]:
        """Index of the image of each kind; an image stands once."""
        means, spread = self._errors.mean(axis=0), self._errors.std(axis=0)
        found: dict[str, int] = {}
        anomalous = [i for i in self._shown if self._is_anomalous[i]]
        if anomalous:
            found["best"] = min(anomalous, key=lambda i: float(means[i]))
        rest = [i for i in self._shown if i not in found.values()]
        if rest and max(means[rest]) > 0:
            found["worst"] = max(rest, key=lambda i: float(means[i]))
        rest = [i for i in rest if i not in found.values()]
        if self._several and rest and max(spread[rest]) > 0:
            found["disputed"] = max(rest, key=lambda i: float(spread[i]))
        return found


def errors(evidence: Evidence) -> Float[np.ndarray, " n"]:
    """For every image the share of images of the other kind that stand on the wrong side of it.

    0 is perfect, for normal and anomalous images alike; ties count half.
    """
    scores = np.array([one.score for one in evidence.images])
    flags = np.array([one.is_anomalous for one in evidence.images])
    found = np.zeros(len(scores))
    for is_anomalous in (True, False):
        mine, others = flags == is_anomalous, np.sort(scores[flags != is_anomalous])
        if not len(others):
            continue
        below = np.searchsorted(others, scores[mine], side="left")
        tied = np.searchsorted(others, scores[mine], side="right") - below
        above = len(others) - below - tied
        found[mine] = ((above if is_anomalous else below) + tied / 2) / len(others)
    return found


def _scale(scales: Iterable[Scale]) -> Scale:
    """The middle one of a method's classes: one class with wild maps does not dim all others."""
    all_scales = list(scales)
    return Scale(median(s.low for s in all_scales), median(s.high for s in all_scales))


def _figure(
    kind: str, index: int, rivals: Sequence[Judged], scales: Mapping[str, Scale]
) -> Figure | None:
    shown = [(one, p) for one in rivals for p in one.evidence.pictures if p.index == index]
    if not shown:
        return None
    first, picture = shown[0]
    judged = first.evidence.images[index]
    image = _decoded(picture.image, "JPEG", "RGB")
    mask = _decoded(picture.mask, "PNG", "1") if picture.mask else None
    outlined = overlay(image, np.zeros(image.shape[:2]), 0.0, 1.0, mask)
    what = judged.defect or ("anomalous" if judged.is_anomalous else "normal")
    wrong = [100 * float(errors(one.evidence)[index]) for one, _ in shown]
    side = "normal images score higher" if judged.is_anomalous else "anomalous images score lower"
    return Figure(
        title=KINDS[kind],
        target=first.target,
        path=judged.path,
        words=f"{what}; {_range(wrong)} % of the {side}",
        image=data_uri(image),
        truth=data_uri(outlined) if mask is not None else "",
        tiles=tuple(_tile(one, p, image, mask, scales[one.label]) for one, p in shown),
    )


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.0f}", f"{max(values):.0f}"
    return low if low == high else f"{low} to {high}"


def _tile(
    one: Judged,
    picture: Picture,
    image: UInt8[np.ndarray, "h w 3"],
    mask: UInt8[np.ndarray, "h w"] | np.ndarray | None,
    scale: Scale,
) -> Tile:
    own = one.evidence.scale
    raw = own.low + picture.heat.astype(np.float32) * (own.high - own.low)
    size = (image.shape[1], image.shape[0])
    resized = np.asarray(Image.fromarray(raw).resize(size, Image.Resampling.BILINEAR))
    wrong = errors(one.evidence)[picture.index]
    score = one.evidence.images[picture.index].score
    return Tile(
        label=one.label,
        heat=data_uri(heat_colours(resized, scale.low, scale.high)),
        overlay=data_uri(overlay(image, resized, scale.low, scale.high, mask)),
        words=f"score {score:.3g}, {100 * wrong:.0f} % in wrong order",
        anchor=one.anchor,
    )


def data_uri(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """A picture as part of the page."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _decoded(content: bytes, kind: str, mode: str) -> np.ndarray:
    """A stored picture; its size is looked at before its pixels."""
    try:
        with Image.open(io.BytesIO(content), formats=[kind]) as image:
            if max(image.size) > SIDE:
                raise ValueError(f"{image.size} pixels, expected {SIDE} at most")
            return np.asarray(image.convert(mode))
    except (OSError, ValueError, SyntaxError) as error:
        reason = " ".join(str(error).split())
        raise FewShotError(f"a kept picture cannot be read ({reason}); run it again") from error


def _check_frame(picture: Picture) -> None:
    height, width, _ = _decoded(picture.image, "JPEG", "RGB").shape
    if picture.mask and _decoded(picture.mask, "PNG", "1").shape != (height, width):
        raise FewShotError("a kept mask does not fit its picture; run the cell again")


def readable(fetch: Callable[[str], bytes | None], key: str, broken: list[str]) -> Evidence | None:
    """The evidence of a row where there is any; what is damaged is noted, and the page goes on."""
    content = fetch(key)
    if content is None:
        return None
    try:
        evidence = Evidence.from_bytes(content)
        for picture in evidence.pictures:
            _check_frame(picture)
    except FewShotError as error:
        broken.append(f"row {key}: {error}")
        return None
    return evidence
