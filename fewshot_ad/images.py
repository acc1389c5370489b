"""Images and masks: bring them to the frame of a method and back, and paint heat maps.

An image and its mask go through the same geometry. Methods see tensors; files, ground truth and
whatever people look at are arrays. Files are read in ``image_files``.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import Image
from scipy.ndimage import binary_dilation
from torch import Tensor

from fewshot_ad.api import FewShotError, Preprocess

AnomalyMap = Float[Tensor, "h w"] | Float[np.ndarray, "h w"]
EvalSize = int | Literal["native"]

# Nine points of matplotlib's inferno: luminance grows steadily, so brighter always means higher.
_INFERNO = [
    *[(0, 0, 4), (31, 12, 72), (85, 15, 109), (136, 34, 106), (186, 54, 85)],
    *[(227, 89, 51), (249, 140, 10), (249, 201, 50), (252, 255, 164)],
]
_PALETTE = np.stack(
    [
        np.interp(np.linspace(0, 8, 256), range(9), channel)
        for channel in zip(*_INFERNO, strict=True)
    ],
    axis=-1,
).astype(np.float32)
_CONTOUR = (0, 255, 255)  # cyan: the one strong colour that neither inferno nor most products show
_MOST_OPAQUE = 0.75


def prepare(
    image: UInt8[np.ndarray, "height width 3"], preprocess: Preprocess
) -> Float[Tensor, "3 h w"]:
    """From RGB bytes to the normalised square that a method eats: antialiased bicubic, float32."""
    square = _into_square(image, preprocess, Image.Resampling.BICUBIC)
    unit = torch.from_numpy(square).permute(2, 0, 1).contiguous().float() / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (preprocess.mean, preprocess.std))
    return (unit - mean) / std


def prepare_mask(
    mask: Bool[np.ndarray, "height width"], preprocess: Preprocess
) -> Bool[Tensor, "h w"]:
    """A mask through the geometry of its image, nearest neighbour."""
    square = _into_square(mask.astype(np.uint8), preprocess, Image.Resampling.NEAREST)
    return torch.from_numpy(square.astype(bool))


def restore_map(
    anomaly_map: AnomalyMap, preprocess: Preprocess, size_hw: tuple[int, int]
) -> Float[np.ndarray, "height width"]:
    """An anomaly map in the frame of the native image, bilinear.

    Padding is cut off. What a centre crop cut away was never judged and gets the minimum of the
    map, so that a defect out there counts as missed.

    Raises:
        FewShotError: the map is not of the size that ``preprocess`` makes.
    """
    return _out_of_square(anomaly_map, preprocess, size_hw, size_hw)


def align(
    anomaly_map: AnomalyMap,
    mask: Bool[np.ndarray, "height width"],
    preprocess: Preprocess,
    eval_size: EvalSize = 256,
) -> tuple[Float[np.ndarray, "e f"], Bool[np.ndarray, "e f"]]:
    """Map and native mask in one frame, where metrics compare them.

    The frame is the full native image, squashed to ``eval_size`` squared or left at its own size
    (``"native"``): defects that a crop cut away stay in the count.

    Raises:
        FewShotError: ``eval_size`` is not positive, or the map is not of the size that
            ``preprocess`` makes.
    """
    height, width = mask.shape
    aligned = align_map(anomaly_map, preprocess, (height, width), eval_size)
    return aligned, align_mask(mask, eval_size)


def align_map(
    anomaly_map: AnomalyMap,
    preprocess: Preprocess,
    size_hw: tuple[int, int],
    eval_size: EvalSize = 256,
) -> Float[np.ndarray, "e f"]:
    """The half of ``align`` that is the method's: bilinear, in a single interpolation."""
    return _out_of_square(anomaly_map, preprocess, size_hw, _eval_hw(size_hw, eval_size))


def align_mask(
    mask: Bool[np.ndarray, "height width"], eval_size: EvalSize = 256
) -> Bool[np.ndarray, "e f"]:
    """The half of ``align`` that is the truth's: nearest, so that the finest defects may vanish."""
    height, width = mask.shape
    size_hw = _eval_hw((height, width), eval_size)
    return _resize(mask.astype(np.uint8), size_hw, Image.Resampling.NEAREST).astype(bool)


def overlay(
    image: UInt8[np.ndarray, "h w 3"],
    anomaly_map: AnomalyMap,
    low: float,
    high: float,
    mask: Bool[np.ndarray, "h w"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """The image with its anomaly map painted over it, and the ground truth outlined in cyan.

    ``low`` and below is transparent, ``high`` and above is brightest. One scale must serve all the
    images that are shown together (calibrated on normals, say): stretching every map to its own
    range would paint a defect on every normal image.
    """
    span = max(high - low, np.finfo(np.float32).tiny)
    heat = np.clip((np.asarray(anomaly_map, dtype=np.float32) - low) / span, 0, 1)
    colour = _PALETTE[np.rint(heat * (len(_PALETTE) - 1)).astype(np.intp)]
    painted = np.rint(image + (colour - image) * (_MOST_OPAQUE * heat[..., None])).astype(np.uint8)
    if mask is not None and mask.any():
        thickness = max(1, round(max(mask.shape) / 256))
        painted[binary_dilation(mask, iterations=thickness) & ~mask] = _CONTOUR
    return painted


def heat_colours(anomaly_map: AnomalyMap, low: float, high: float) -> UInt8[np.ndarray, "h w 3"]:
    """The colours of ``overlay`` alone: ``low`` and below black, ``high`` and above brightest."""
    span = max(high - low, np.finfo(np.float32).tiny)
    heat = np.clip((np.asarray(anomaly_map, dtype=np.float32) - low) / span, 0, 1)
    return np.rint(_PALETTE[np.rint(heat * (len(_PALETTE) - 1)).astype(np.intp)]).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Size of the resized image and where its corner lies in the square; negative: outside."""

    height: int
    width: int
    top: int
    left: int


def _frame(size_hw: tuple[int, int], preprocess: Preprocess) -> _Frame:
    """``crop`` rounds as torchvision's Resize and CenterCrop do: papers can be reproduced."""
    size = preprocess.size
    if preprocess.geometry == "squash":
        return _Frame(size, size, 0, 0)
    if preprocess.geometry == "pad":
        height, width = (max(1, round(side * size / max(size_hw))) for side in size_hw)
    else:
        height, width = (side * size // min(size_hw) for side in size_hw)
    return _Frame(height, width, round((size - height) / 2), round((size - width) / 2))


def _eval_hw(size_hw: tuple[int, int], eval_size: EvalSize) -> tuple[int, int]:
    if eval_size == "native":
        return size_hw
    if eval_size < 1:
        raise FewShotError(f"eval_size is {eval_size}; give a positive number or 'native'")
    return eval_size, eval_size


def _into_square(
    array: UInt8[np.ndarray, "height width *channels"],
    preprocess: Preprocess,
    resample: Image.Resampling,
) -> UInt8[np.ndarray, "h w *channels"]:
    height, width = array.shape[:2]
    frame = _frame((height, width), preprocess)
    resized = _resize(array, (frame.height, frame.width), resample)
    return _window(resized, frame.top, frame.left, (preprocess.size, preprocess.size))


def _out_of_square(
    anomaly_map: AnomalyMap,
    preprocess: Preprocess,
    size_hw: tuple[int, int],
    out_hw: tuple[int, int],
) -> Float[np.ndarray, "height width"]:
    """The map over the whole native image, sampled at ``out_hw``."""
    values = np.asarray(anomaly_map, dtype=np.float32)
    size = preprocess.size
    if values.shape != (size, size):
        raise FewShotError(
            f"the anomaly map is {values.shape[0]}x{values.shape[1]}, its image {size}x{size}; "
            "a method must return maps of the size of the images it is given"
        )
    frame = _frame(size_hw, preprocess)
    if frame == _Frame(size, size, 0, 0):  # nothing was cut off or added
        return _resize(values, out_hw, Image.Resampling.BILINEAR)
    whole = _window(values, -frame.top, -frame.left, (frame.height, frame.width))
    restored = _resize(whole, out_hw, Image.Resampling.BILINEAR)
    rows = (np.arange(out_hw[0]) + 0.5) * frame.height / out_hw[0] + frame.top
    columns = (np.arange(out_hw[1]) + 0.5) * frame.width / out_hw[1] + frame.left
    inside = ((rows >= 0) & (rows < size))[:, None] & (columns >= 0) & (columns < size)
    return np.where(inside, restored, values.min())


def _window(
    array: Shaped[np.ndarray, "height width *channels"],
    top: int,
    left: int,
    size_hw: tuple[int, int],
) -> Shaped[np.ndarray, "h w *channels"]:
    """What a window shows when the array's corner lies at (top, left) in it; its border repeats."""
    rows = np.clip(np.arange(size_hw[0]) - top, 0, array.shape[0] - 1)
    columns = np.clip(np.arange(size_hw[1]) - left, 0, array.shape[1] - 1)
    return array[rows[:, None], columns]


def _resize(
    array: Shaped[np.ndarray, "height width *channels"],
    size_hw: tuple[int, int],
    resample: Image.Resampling,
) -> Shaped[np.ndarray, "h w *channels"]:
    """Pillow's resize, which averages over what it shrinks (but for nearest)."""
    height, width = size_hw
    return np.array(Image.fromarray(array).resize((width, height), resample))
