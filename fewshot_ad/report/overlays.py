"""Pictures of what a method saw: the highest scores, the worst misses, the most false alarms.

Every example is three panels: the image, its ground truth outlined, its heat map. All heat maps of
a sheet share one colour scale, so a normal image looks calm beside an anomalous one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from fewshot_ad.api import Dataset, Episode, Prediction, Preprocess
from fewshot_ad.evaluation.examples import EXAMPLES, Scale, pick_examples, shared_scale
from fewshot_ad.images import overlay, restore_map

PANEL, GAP, LINE = 200, 6, 18
INK, FAINT = (20, 20, 20), (110, 110, 110)

Pixels = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Sheet:
    """One episode with everything that is needed to paint its examples."""

    dataset: Dataset
    episode: Episode
    prediction: Prediction
    preprocess: Preprocess

    def paint(self, title: str) -> Pixels:
        """A row for each kind of example under a title, with the colour scale at the foot."""
        scores = self.prediction.image_score.numpy()
        scale = shared_scale(self.prediction.anomaly_map.numpy())
        width = EXAMPLES * (3 * PANEL + GAP) - GAP
        strips = [_text([title], width, INK)]
        for kind, indices in pick_examples(scores, self._is_anomalous()).items():
            strips.append(_text([f"{kind}: none" if not indices else kind], width, INK))
            strips += [self._row(indices, scale, width)] if indices else []
        strips.append(_legend(scale, width))
        return np.concatenate(strips)

    def _is_anomalous(self) -> Bool[np.ndarray, " b"]:
        return np.array([sample.is_anomalous for sample in self.episode.query], dtype=bool)

    def _row(self, indices: Sequence[int], scale: Scale, width: int) -> Pixels:
        canvas = np.full((LINE * 2 + PANEL + GAP, width, 3), 255, np.uint8)
        for place, index in enumerate(indices):
            left = place * (3 * PANEL + GAP)
            panels = np.concatenate(self._panels(index, scale), axis=1)
            canvas[2 * LINE : 2 * LINE + PANEL, left : left + 3 * PANEL] = panels
            canvas[: 2 * LINE, left : left + 3 * PANEL] = _text(
                self._caption(index), 3 * PANEL, FAINT
            )
        return canvas

    def _panels(self, index: int, scale: Scale) -> list[Pixels]:
        sample = self.episode.query[index]
        image = self.dataset.read_image(sample)
        mask = self.dataset.read_mask(sample)
        anomaly_map = restore_map(
            self.prediction.anomaly_map[index], self.preprocess, (image.shape[0], image.shape[1])
        )
        outlined = overlay(image, np.zeros_like(anomaly_map), 0.0, 1.0, mask)
        heat = overlay(image, anomaly_map, scale.low, scale.high)
        return [_panel(image), _panel(outlined), _panel(heat)]

    def _caption(self, index: int) -> list[str]:
        sample = self.episode.query[index]
        scores = self.prediction.image_score.numpy()
        others = scores[self._is_anomalous() != sample.is_anomalous]
        rivals = "normal" if sample.is_anomalous else "anomalous"
        path = PurePosixPath(sample.path)
        beaten = int((others < scores[index]).sum())
        return [
            f"{path.parent.name}/{path.name}",
            f"score {scores[index]:.4g}, above {beaten} of {len(others)} {rivals} images",
        ]


def _panel(image: Pixels) -> UInt8[np.ndarray, "side side 3"]:
    """The image, shrunk or enlarged into a square with its aspect kept."""
    height, width = image.shape[:2]
    scale = (PANEL - 2) / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    canvas = Image.new("RGB", (PANEL, PANEL), "white")
    resized = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    canvas.paste(resized, ((PANEL - size[0]) // 2, (PANEL - size[1]) // 2))
    return np.asarray(canvas)


def _text(lines: Sequence[str], width: int, colour: tuple[int, int, int]) -> Pixels:
    strip = Image.new("RGB", (width, LINE * len(lines)), "white")
    pen = ImageDraw.Draw(strip)
    font = ImageFont.load_default(12)
    for number, line in enumerate(lines):
        pen.text((2, number * LINE + 2), _shortened(line, width, font), fill=colour, font=font)
    return np.asarray(strip)


def _shortened(line: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The end of a line that is too long: file names differ at their end."""
    if font.getlength(line) <= width - 4:
        return line
    while line and font.getlength("..." + line) > width - 4:
        line = line[1:]
    return "..." + line


def _legend(scale: Scale, width: int) -> Pixels:
    ramp = np.tile(np.linspace(0.0, 1.0, PANEL, dtype=np.float32), (LINE, 1))
    grey = np.full((LINE, PANEL, 3), 128, np.uint8)
    words = (
        f"{scale.low:.4g} to {scale.high:.4g}, one scale for all images of the episode (median to "
        "99.5th percentile); left: image, middle: ground truth outlined in cyan, right: anomaly map"
    )
    text = _text([words], width - PANEL - GAP, FAINT)
    space = np.full((LINE, GAP, 3), 255, np.uint8)
    return np.concatenate([overlay(grey, ramp, 0.0, 1.0), space, text], axis=1)
