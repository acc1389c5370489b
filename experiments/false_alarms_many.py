"""Promised against observed false alarms over hundreds of draws, by the plainest nearest patch.

    python experiments/false_alarms_many.py --classes screw,capsule

The distance between every two normals of the train split is taken once, patch by patch, so that a
draw costs next to nothing: an image is as anomalous as its patch that is farthest from all patches
of the drawn normals. This is where the bound of the jackknife+ holds (docs/inspection.md).
"""

import argparse

import numpy as np
import torch
from torch.nn import functional

from fewshot_ad import load_dataset
from fewshot_ad.api import Dataset, Preprocess
from fewshot_ad.images import prepare
from fewshot_ad.inspection.thresholds import conformal_threshold, least_rate
from fewshot_ad.parts.backbones import load_backbone

SHOTS = (2, 4, 8, 16)


def distances(dataset: Dataset, class_name: str, backbone: str, size: int) -> np.ndarray:
    """[n n p]: of every patch of an image, the distance to the nearest one of another image."""
    preprocess = Preprocess(size=size)
    samples = dataset.train(class_name)
    images = torch.stack([prepare(dataset.read_image(each), preprocess) for each in samples])
    (maps,) = load_backbone(backbone, levels=(2,))(images)
    patches = functional.normalize(maps, dim=1).flatten(2).mT
    rows = [[torch.cdist(one, other).amin(dim=1) for other in patches] for one in patches]
    return torch.stack([torch.stack(row) for row in rows]).numpy()


def observed(pairs: np.ndarray, shots: int, draws: int) -> np.ndarray:
    """The share of the normals not drawn that is above the threshold, for every draw."""
    generator = np.random.default_rng(shots)

    def score(image: int, normals: np.ndarray) -> float:
        return float(pairs[image, normals].min(axis=0).max())

    found = []
    for _ in range(draws):
        order = generator.permutation(len(pairs))
        drawn, others = order[:shots], order[shots:]
        left_out = [score(one, drawn[drawn != one]) for one in drawn]
        threshold = conformal_threshold(left_out, least_rate(shots))
        found.append(np.mean([score(one, drawn) > threshold for one in others]))
    return np.array(found)


def main() -> None:
    """Print a table in percent, a row for each class and number of shots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="synthetic")
    parser.add_argument("--classes", required=True, help="joined by commas")
    parser.add_argument("--backbone", default="tiny")
    parser.add_argument("--size", type=int, default=112, help="side of the images, in pixels")
    parser.add_argument("--draws", type=int, default=400)
    options = parser.parse_args()
    dataset = load_dataset(options.dataset)
    print("| class | shots | in force | observed, mean | 5 % of draws above |")
    print("| --- | --- | --- | --- | --- |")
    for name in options.classes.split(","):
        pairs = distances(dataset, name, options.backbone, options.size)
        for shots in SHOTS:
            found = 100 * observed(pairs, shots, options.draws)
            cells = [name, shots, f"{100 * least_rate(shots):.1f}", f"{found.mean():.1f}"]
            print(f"| {' | '.join(map(str, [*cells, f'{np.quantile(found, 0.95):.0f}']))} |")


if __name__ == "__main__":
    main()
