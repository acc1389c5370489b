"""What ResAD costs beside the forward pass of its backbone, and where that goes.

    python benchmarks/overhead.py --backbone random:resnet18 random:wide_resnet50_2

CPU seconds on one thread, in turns, always another photo. The models are not trained, which changes
no time. ``predict`` is as an inspector calls it: photos pass once, and nothing of them is kept. A
study matches with one support image after another instead, so that its episodes share what was
matched: ``in a study``.
"""

import argparse
from collections.abc import Callable, Iterator

import torch
from measuring import in_turns, table
from torch import Tensor

from fewshot_ad.api import Preprocess, Support
from fewshot_ad.data import load_dataset
from fewshot_ad.images import prepare
from fewshot_ad.methods.resad import ResAD
from fewshot_ad.parts.passing import passing_once


def fresh_photos(target: str, preprocess: Preprocess) -> Iterator[Tensor]:
    """Photos without end, none twice."""
    drawn = load_dataset("synthetic")
    photos = [prepare(drawn.read_image(sample), preprocess) for sample in drawn.test(target)[:16]]
    shift = 0.0
    while True:
        shift += 1e-3
        yield from (photo[None] + shift for photo in photos)


def stages(method: ResAD, photos: Iterator[Tensor]) -> dict[str, Callable[[], object]]:
    """What to time."""
    assert method.support_ is not None
    assert method.models_ is not None
    support, models, stage = method.support_, method.models_, method._stage
    embedded = stage.embed_once(next(photos))
    residuals = stage.subtract_once(embedded, support)
    levels = models.scores(residuals)
    size = method.preprocess.size, method.preprocess.size

    def embed() -> list[Tensor]:
        return stage.embed_once(next(photos))

    def once(call: Callable[[], object]) -> None:
        with passing_once():
            call()

    return {
        "backbone": lambda: method.features.backbone(next(photos)),
        "predict": lambda: once(lambda: method.predict(next(photos))),
        "in a study": lambda: method.predict(next(photos)),
        "embedding": embed,
        "matching": lambda: once(lambda: stage.subtract(embed(), support)),
        "models": lambda: models.scores(residuals),
        "map": lambda: method._map(levels, size),
    }


def line_of(backbone: str, options: argparse.Namespace) -> tuple[str, ...]:
    """Milliseconds of a backbone, and the overhead."""
    frame = Preprocess(size=options.size)
    method = ResAD(backbone=backbone, preprocess=frame, device="cpu")
    method.models_ = method._build().eval()
    photos = fresh_photos(options.target_class, frame)
    support = torch.cat([next(photos) for _ in range(options.shots)])
    method.fit(Support(options.target_class, support))
    calls = stages(method, photos)
    seconds = in_turns(list(calls.values()), options.repeats)
    found = dict(zip(calls, seconds, strict=True))
    found["matching"] -= found["embedding"]  # it was fed anew, or it would remember
    found["embedding"] -= found["backbone"]
    overhead = found["predict"] / found["backbone"] - 1
    return backbone, *(f"{each * 1e3:.1f}" for each in found.values()), f"{overhead:.0%}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="ResAD beside its backbone")
    parser.add_argument(
        "--backbone", nargs="+", default=["random:resnet18", "random:wide_resnet50_2"]
    )
    parser.add_argument("--target-class", default="screw")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [line_of(backbone, options) for backbone in options.backbone]
    print(f"{options.size} px, {options.shots} shots, one image; milliseconds\n")
    head = ("backbone", "bare", "predict", "in a study", "embedding", "matching", "models", "map")
    print(table((*head, "overhead"), lines))


if __name__ == "__main__":
    main()
