"""Write the manifests in ``episodes/``: once, since a published manifest is never edited.

    python experiments/make_manifests.py resad_reference_shots.json

MVTec AD needs no images: its train files are numbered from 000 and their counts are known, so the
rule of `fewshot_ad.episodes.draw` can be applied to the names. The argument is the collected list
of the file names of ResAD's reference shots: ``{"shots": {dataset: {class: {"4shot": [...]}}}}``.
"""

import json
import sys
from pathlib import Path

from fewshot_ad.episodes import Manifest, permuted, save_manifest
from fewshot_ad.episodes.drawing import RULE

EPISODES = Path(__file__).parents[1] / "episodes"

MVTEC_AD_TRAIN_NORMALS = {
    "bottle": 209,
    "cable": 224,
    "capsule": 219,
    "carpet": 280,
    "grid": 264,
    "hazelnut": 391,
    "leather": 245,
    "metal_nut": 220,
    "pill": 267,
    "screw": 320,
    "tile": 230,
    "toothbrush": 60,
    "transistor": 213,
    "wood": 247,
    "zipper": 240,
}

# Our name of a dataset, its name in the collected list, and where its normal images lie.
RESAD_DATASETS = [
    ("mvtec_ad", "mvtec", "{}/train/good/{}"),
    ("visa", "visa", "{}/Data/Images/Normal/{}"),
    ("btad", "btad", "{}/train/ok/{}"),
    ("mvtec_3d", "mvtec3d", "{}/train/good/rgb/{}"),
]

# Reference shots that are test normals in VisA's split_csv/1cls.csv.
VISA_TEST_NORMALS = {
    "capsules": ["013.JPG", "400.JPG"],
    "fryum": ["023.JPG"],
    "macaroni2": ["0011.JPG"],
    "pcb2": ["0024.JPG", "0046.JPG"],
    "pcb3": ["0654.JPG"],
}

RESAD_SOURCE = (
    "ResAD (NeurIPS 2024, https://arxiv.org/abs/2410.20047), reference shots of its release "
    "(huggingface.co/datasets/xcyao00/resad-data, copied in github.com/saranyab21/ResAD-extended)"
)
RESAD_RULE = (
    "as published, in sorted order of the file names; fewer shots are the first of the list"
)
RESAD_NOTES = (
    "the published 4-shot lists are subsets of the 8-shot lists, but not always their first 4"
)
VISA_NOTES = "paths are those of the original layout, leaks are by the split 1cls"


def mvtec_ad(seeds: int = 5, max_shots: int = 16) -> Manifest:
    """The drawn manifest of MVTec AD."""
    support = {
        seed: {
            name: tuple(
                permuted(
                    (f"{name}/train/good/{index:03d}.png" for index in range(count)),
                    "mvtec_ad",
                    name,
                    seed,
                )[:max_shots]
            )
            for name, count in MVTEC_AD_TRAIN_NORMALS.items()
        }
        for seed in range(seeds)
    }
    return Manifest("mvtec_ad", "mvtec_ad", max_shots, support, rule=RULE)


def resad(
    dataset: str, folder: str, shots: int, lists: dict[str, dict[str, list[str]]]
) -> Manifest:
    """The published lists of one dataset and number of shots."""
    support = {
        name: tuple(folder.format(name, file) for file in sorted(files[f"{shots}shot"]))
        for name, files in lists.items()
    }
    marked = VISA_TEST_NORMALS if dataset == "visa" else {}
    leaks = {
        name: tuple(path for path in support[name] if Path(path).name in files)
        for name, files in marked.items()
    }
    return Manifest(
        f"resad_{dataset}_{shots}shot",
        dataset,
        shots,
        {0: support},
        leaks={name: paths for name, paths in leaks.items() if paths},
        rule=RESAD_RULE,
        source=RESAD_SOURCE,
        notes=f"{RESAD_NOTES}; {VISA_NOTES}" if dataset == "visa" else RESAD_NOTES,
    )


def main(reference_shots: Path) -> None:
    """Write every manifest that is not there yet."""
    published = json.loads(reference_shots.read_text(encoding="utf-8"))["shots"]
    manifests = [mvtec_ad()] + [
        resad(dataset, folder, shots, published[theirs])
        for dataset, theirs, folder in RESAD_DATASETS
        for shots in (4, 8)
    ]
    for manifest in manifests:
        path = EPISODES / f"{manifest.name}.json"
        if not path.exists():
            save_manifest(manifest, path)
            print("wrote", path.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
