"""What cross_dataset.yaml costs on several workers, computed from cells that were measured.

    python experiments/scale.py results/mine [results/other ...] [--training-hours resad=0.5]

Reads the rows of any runs, on CPU or GPU, and prints the table of docs/scale.md. Only datasets
whose counts are on record take part. A worker is what the rows were measured on: one process with
its threads, or one GPU. Nothing is assumed of another machine.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fewshot_ad.data import dataset_class, list_datasets
from fewshot_ad.evaluation.results import ResultRow
from fewshot_ad.studies.store import load_rows

WORKERS = (1, 8, 64)
SHOTS, SEEDS = 2, 5


@dataclass(frozen=True)
class Cost:
    """Seconds of a method over the whole study.

    Attributes:
        cells: how many there are.
        jobs: seconds of each class with each known set, all shots and seeds.
        trainings: seconds of each meta-training.
    """

    cells: int
    jobs: tuple[float, ...]
    trainings: tuple[float, ...]

    def hours(self, workers: int) -> float:
        """The least that so many workers need: work is shared, and a chain is not."""
        chain = max(self.trainings, default=0.0) + max(self.jobs)
        return max((sum(self.jobs) + sum(self.trainings)) / workers, chain) / 3600


def counted_datasets() -> dict[str, list[int]]:
    """Test images of every class, of the published datasets whose counts are on record.

    Where only their sum is, classes are taken to be of one size.
    """
    found: dict[str, list[int]] = {}
    for name in list_datasets():
        kind = dataset_class(name)
        known, total = getattr(kind, "known", ()), getattr(kind, "total", None)
        counts = [test for _, test in getattr(kind, "expected", {}).values()]
        if not counts and total is not None:
            counts = [round(total[1] / len(known))] * len(known)
        if counts:
            found[name] = counts
    return found


def image_seconds(rows: Iterable[ResultRow]) -> dict[tuple[str, str, str], float]:
    """Seconds of a cell by judged image, for every method, backbone and track.

    Fit, predict and metrics count; reading does not, and the first cell of a class has paid for the
    features of the others.
    """
    seconds: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    images: defaultdict[tuple[str, str, str], int] = defaultdict(int)
    for row in rows:
        n, kind = row.n_normal + row.n_anomalous, (row.method, str(row.backbone), row.track)
        spent = row.fit_seconds + row.metric_seconds + n * row.predict_seconds_per_image
        seconds[kind] += spent
        images[kind] += n
    return {kind: seconds[kind] / images[kind] for kind in seconds}


def cost(
    per_image: float, training_seconds: float | None, datasets: Mapping[str, Sequence[int]]
) -> Cost:
    """A method on every class; one that learns, after every dataset but that of the class."""
    times = 1 if training_seconds is None else len(datasets) - 1
    classes = [n for counts in datasets.values() for n in counts]
    return Cost(
        cells=len(classes) * times * SHOTS * SEEDS,
        jobs=tuple(n * SHOTS * SEEDS * per_image for n in classes for _ in range(times)),
        trainings=() if training_seconds is None else (training_seconds,) * len(datasets),
    )


def table(rows: Sequence[ResultRow], training_hours: Mapping[str, float]) -> list[str]:
    """Markdown: a line for each method and backbone, with hours on so many workers."""
    datasets = counted_datasets()
    heads = " | ".join(f"{n} worker{'s' * (n > 1)}" for n in WORKERS)
    lines = [
        f"| method, backbone | cells | s per image | {heads} |",
        "| --- | --- | --- |" + " --- |" * len(WORKERS),
    ]
    for (method, backbone, track), per_image in sorted(image_seconds(rows).items()):
        learns = track == "meta_trained"
        if learns and method not in training_hours:
            lines.append(
                f"| `{method}`, {backbone} | – | {per_image:.3f} | training not measured |"
            )
            continue
        training = training_hours[method] * 3600 if learns else None
        found = cost(per_image, training, datasets)
        hours = " | ".join(f"{found.hours(n):.1f} h" for n in WORKERS)
        lines.append(f"| `{method}`, {backbone} | {found.cells} | {per_image:.3f} | {hours} |")
    return lines


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--training-hours", nargs="*", default=[], metavar="METHOD=HOURS")
    options = parser.parse_args()
    given = (each.partition("=") for each in options.training_hours)
    hours = {name: float(text) for name, _, text in given}
    rows = [row for path in options.results for row in load_rows(path)]
    counted = counted_datasets()
    print(f"{len(rows)} measured rows; {len(counted)} datasets: {', '.join(counted)};")
    n_classes, n_images = sum(map(len, counted.values())), sum(map(sum, counted.values()))
    print(f"{n_classes} classes, {n_images} test images\n")
    print("\n".join(table(rows, hours)))


if __name__ == "__main__":
    main()
