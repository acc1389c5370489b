"""What a row was measured from, small enough to keep: scores, curves and a few pictures.

A report shows it long after the images are gone. As bytes it is one safetensors file: nothing in it
is ever executed, and nothing unpacks to more than ``MAX_BYTES`` promise.
"""

import io
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from fewshot_ad.api import Dataset, FewShotError, Preprocess, Sample
from fewshot_ad.evaluation.curves import CURVES, POINTS, Curve
from fewshot_ad.evaluation.evaluator import Outcome
from fewshot_ad.evaluation.examples import Scale, pick_examples, shared_scale
from fewshot_ad.evaluation.reading import read_image
from fewshot_ad.images import align_map

FORMAT = 1
MAX_BYTES = 300_000
MAX_IMAGES = 2000
PICTURES, SIDE, MAP_SIDE = 12, 128, 64
_OF_A_KIND, _COMMON_ANOMALOUS, _COMMON_NORMAL = 2, 4, 2
_MAX_TEXT = 4_000_000  # of the list of images, unpacked
_SAMPLED = 2**22  # pixels that decide the colour scale

Heat = Float[np.ndarray, "64 64"]


@dataclass(frozen=True, slots=True)
class JudgedImage:
    """A query image with its raw score; the path is relative to the root of its dataset."""

    path: str
    defect: str | None
    is_anomalous: bool
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One judged image to look at.

    Attributes:
        index: of the image in ``Evidence.images``.
        image: JPEG, longest side ``SIDE``.
        mask: PNG of one bit in the same frame; empty where there is no ground truth.
        heat: the anomaly map over the whole image, squashed to a square: 0 where it has the low
            end of ``Evidence.scale``, 1 at the high end; half precision.
    """

    index: int
    image: bytes
    mask: bytes
    heat: Heat


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What a row was measured from.

    Attributes:
        images: every query image, or ``MAX_IMAGES`` evenly taken ones and those of the pictures.
        n_images: how many there were.
        curves: heights over ``curves.GRID``, by the names of ``curves.CURVES``.
        scale: what the colours of the maps span: the median and the 99.5th percentile of all maps.
        pictures: the highest scores, worst misses and false alarms, and some images that are the
            same whatever the method, so that methods can be compared.
    """

    images: tuple[JudgedImage, ...]
    n_images: int
    curves: Mapping[str, Curve]
    scale: Scale
    pictures: tuple[Picture, ...]

    def to_bytes(self) -> bytes:
        """One safetensors file below ``MAX_BYTES``: pictures are left out, the last first."""
        for n_pictures in range(len(self.pictures), -1, -1):
            packed = self._packed(self.pictures[:n_pictures])
            if len(packed) <= MAX_BYTES:
                return packed
        raise FewShotError(
            f"the scores of {len(self.images)} images take more than {MAX_BYTES} bytes; shorten "
            "the paths of the dataset"
        )

    def _packed(self, pictures: Sequence[Picture]) -> bytes:
        images = [[one.path, one.defect, one.is_anomalous] for one in self.images]
        text = zlib.compress(json.dumps(images, separators=(",", ":")).encode(), 9)
        tensors = {
            "images": np.frombuffer(text, np.uint8),
            "scores": np.array([one.score for one in self.images], np.float32),
            "scale": np.array([self.scale.low, self.scale.high]),
        }
        tensors |= {
            f"curve.{name}": curve.astype(np.float32) for name, curve in self.curves.items()
        }
        for place, picture in enumerate(pictures):
            tensors[f"picture.{place}.image"] = np.frombuffer(picture.image, np.uint8)
            tensors[f"picture.{place}.mask"] = np.frombuffer(picture.mask, np.uint8)
            tensors[f"picture.{place}.heat"] = picture.heat.astype(np.float16)
        header = {
            "format": str(FORMAT),
            "n_images": str(self.n_images),
            "pictures": json.dumps([picture.index for picture in pictures]),
        }
        return save_tensors(tensors, header)

    @classmethod
    def from_bytes(cls, packed: bytes) -> "Evidence":
        """What ``to_bytes`` made.

        Raises:
            FewShotError: too long, damaged, or of another format.
        """
        if len(packed) > MAX_BYTES:
            raise FewShotError(
                f"evidence of {len(packed)} bytes; at most {MAX_BYTES} are ever written: the store "
                "was made by something else"
            )
        try:
            header = _header(packed)
            tensors = load_tensors(packed)
            return _unpacked(header, tensors)
        except (KeyError, TypeError, ValueError, IndexError, SafetensorError, zlib.error) as error:
            if isinstance(error, FewShotError):
                raise
            raise FewShotError(
                f"evidence cannot be read ({' '.join(str(error).split())}); the store is damaged: "
                "run the cell again"
            ) from error


def evidence_of(
    outcome: Outcome, dataset: Dataset, preprocess: Preprocess, *, with_pictures: bool = True
) -> Evidence:
    """The evidence of one evaluated cell.

    Args:
        outcome: what ``evaluate`` yields.
        dataset: where its images are read from.
        preprocess: that of the method, which knows where in an image a map lies.
        with_pictures: False keeps scores and curves alone: a few kilobytes.

    Raises:
        FewShotError: an image cannot be read.
    """
    query = outcome.episode.query
    scores = outcome.prediction.image_score.numpy()
    maps = outcome.prediction.anomaly_map.numpy()
    is_anomalous = np.array([sample.is_anomalous for sample in query], dtype=bool)
    scale = _scale(maps)
    shown = _worth_a_look(scores, is_anomalous) if with_pictures else []
    kept = _kept(len(query), shown)
    places = {index: place for place, index in enumerate(kept)}
    return Evidence(
        images=tuple(_judged(query[index], float(scores[index])) for index in kept),
        n_images=len(query),
        curves=dict(outcome.curves),
        scale=scale,
        pictures=tuple(
            _picture(places[index], query[index], maps[index], dataset, preprocess, scale)
            for index in shown
        ),
    )


def _scale(maps: Float[np.ndarray, "b h w"]) -> Scale:
    """From every pixel, or from a grid of them where there are very many."""
    step = max(1, math.ceil(math.sqrt(maps.size / _SAMPLED)))
    return shared_scale(maps[:, ::step, ::step])


def _worth_a_look(
    scores: Float[np.ndarray, " b"], is_anomalous: Bool[np.ndarray, " b"]
) -> list[int]:
    """Extremes of this method first, then images that depend on nothing but the query."""
    kinds = pick_examples(scores, is_anomalous).values()
    extremes = [index for kind in kinds for index in kind[:_OF_A_KIND]]
    common = _spread(np.flatnonzero(is_anomalous), _COMMON_ANOMALOUS)
    common += _spread(np.flatnonzero(~is_anomalous), _COMMON_NORMAL)
    return list(dict.fromkeys(extremes + common))[:PICTURES]


def _kept(n_images: int, shown: Sequence[int]) -> list[int]:
    return sorted({*_spread(np.arange(n_images), MAX_IMAGES), *shown})


def _spread(indices: np.ndarray, count: int) -> list[int]:
    """So many of them, evenly, or all where there are fewer."""
    places = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)
    return [int(index) for index in indices[places]]


def _judged(sample: Sample, score: float) -> JudgedImage:
    return JudgedImage(sample.path, sample.defect, sample.is_anomalous, score)


def _picture(
    place: int,
    sample: Sample,
    anomaly_map: Float[np.ndarray, "h w"],
    dataset: Dataset,
    preprocess: Preprocess,
    scale: Scale,
) -> Picture:
    image = read_image(dataset, sample)
    mask = dataset.read_mask(sample)
    heat = align_map(anomaly_map, preprocess, (image.shape[0], image.shape[1]), MAP_SIDE)
    span = max(scale.high - scale.low, np.finfo(np.float32).tiny)
    heat = np.clip((heat.astype(np.float64) - scale.low) / span, -6e4, 6e4).astype(np.float16)
    return Picture(place, _jpeg(image), b"" if mask is None else _one_bit_png(mask), heat)


def _jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    picture = Image.fromarray(image)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return _encoded(picture, "JPEG", quality=85)


def _one_bit_png(mask: Bool[np.ndarray, "h w"]) -> bytes:
    """Whatever a defect touches is marked, so that the finest one does not vanish."""
    grey = Image.fromarray(mask.astype(np.uint8) * np.uint8(255))
    grey.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return _encoded(Image.fromarray(np.asarray(grey) > 0), "PNG")


def _encoded(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **settings)
    return file.getvalue()


def _header(packed: bytes) -> dict[str, str]:
    """The text before the tensors; safetensors reads it from files alone."""
    length = int.from_bytes(packed[:8], "little")
    header = json.loads(packed[8 : 8 + length])["__metadata__"]
    if header["format"] != str(FORMAT):
        raise FewShotError(
            f"evidence has format {header['format']}, this version reads {FORMAT}; read it with "
            "the package version that wrote it"
        )
    return header


def _unpacked(header: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> Evidence:
    unpacker = zlib.decompressobj()
    text = unpacker.decompress(tensors["images"].tobytes(), _MAX_TEXT)
    listed = cast("list[tuple[str, str | None, bool]]", json.loads(text))
    shown = cast("list[int]", json.loads(header["pictures"]))
    scores = tensors["scores"]
    low, high = (float(value) for value in tensors["scale"])
    return Evidence(
        images=tuple(
            JudgedImage(path, defect, is_anomalous, float(score))
            for (path, defect, is_anomalous), score in zip(listed, scores, strict=True)
        ),
        n_images=int(header["n_images"]),
        curves={name: _curve(tensors[f"curve.{name}"]) for name in _present(tensors)},
        scale=Scale(low, high),
        pictures=tuple(
            _unpacked_picture(tensors, place, range(len(listed))[index])
            for place, index in enumerate(shown)
        ),
    )


def _present(tensors: Mapping[str, np.ndarray]) -> list[str]:
    return [name for name in CURVES if f"curve.{name}" in tensors]


def _curve(values: np.ndarray) -> Curve:
    if values.shape != (POINTS,):
        raise ValueError(f"a curve of shape {values.shape}")
    return values.astype(np.float64)


def _unpacked_picture(tensors: Mapping[str, np.ndarray], place: int, index: int) -> Picture:
    image, mask, heat = (tensors[f"picture.{place}.{part}"] for part in ("image", "mask", "heat"))
    if heat.shape != (MAP_SIDE, MAP_SIDE):
        raise ValueError(f"a map of shape {heat.shape}")
    return Picture(index, image.tobytes(), mask.tobytes(), heat)
