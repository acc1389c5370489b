"""Draw one contact sheet per embedded class, and print how well a raw-pixel difference would do.

    python experiments/contact_sheets.py OUT [CLASS ...]

Top row: train normals. Below, a row per defect, its masks outlined. Look before you believe.
"""

import sys
from pathlib import Path

import cv2
import numpy as np

from fewshot_ad.api import Sample
from fewshot_ad.data.synthetic import Synthetic

COLUMNS = 8


def raw_pixel_scores(
    data: Synthetic, support: list[np.ndarray], samples: list[Sample]
) -> np.ndarray:
    """Scores of the naive judge: the largest blurred difference to the nearest support pixel."""
    scores = []
    for sample in samples:
        image = data.read_image(sample).astype(np.float32)
        maps = [np.sqrt(((image - other) ** 2).sum(2)) for other in support]
        scores.append(cv2.GaussianBlur(np.min(maps, 0), (0, 0), 4).max())
    return np.array(scores)


def i_auroc(normal: np.ndarray, anomalous: np.ndarray) -> float:
    """The chance that an anomalous image scores above a normal one."""
    return float((anomalous[:, None] > normal).mean() + 0.5 * (anomalous[:, None] == normal).mean())


def raw_pixel_auroc(data: Synthetic, class_name: str, shots: int = 4) -> float:
    """I-AUROC of the naive judge on a class."""
    support = [data.read_image(s).astype(np.float32) for s in data.train(class_name)[:shots]]
    test = data.test(class_name)
    scores = raw_pixel_scores(data, support, list(test))
    truth = np.array([sample.is_anomalous for sample in test])
    return i_auroc(scores[~truth], scores[truth])


def outlined(data: Synthetic, sample: Sample) -> np.ndarray:
    """The image with the outline of its mask, a few pixels outside the defect."""
    image = data.read_image(sample)
    mask = cv2.dilate(data.read_mask(sample).astype(np.uint8), np.ones((9, 9), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.ascontiguousarray(image), contours, -1, (0, 255, 0), 1)


def contact_sheet(data: Synthetic, class_name: str) -> np.ndarray:
    """All rows of a class as one picture."""
    test = [sample for sample in data.test(class_name) if sample.is_anomalous]
    rows = [data.train(class_name)[:COLUMNS]]
    rows += [test[start : start + COLUMNS] for start in range(0, len(test), COLUMNS)]
    return np.vstack([np.hstack([outlined(data, sample) for sample in row]) for row in rows])


def main(out: Path, class_names: list[str]) -> None:
    """Write the sheets and print the table."""
    data = Synthetic()
    out.mkdir(parents=True, exist_ok=True)
    aurocs = []
    for class_name in class_names or data.classes:
        sheet = contact_sheet(data, class_name)
        cv2.imwrite(str(out / f"{class_name}.png"), sheet[..., ::-1])
        aurocs.append(raw_pixel_auroc(data, class_name))
        print(f"{class_name:15s} raw-pixel I-AUROC {aurocs[-1]:.3f}")
    print(f"{'mean':15s} raw-pixel I-AUROC {np.mean(aurocs):.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
