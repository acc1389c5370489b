"""What an ablation of prompts costs, in evaluations: images and sentences are embedded once.

    python benchmarks/prompts.py                            # ViT-B-16-plus-240, random weights
    python benchmarks/prompts.py --backbone random:tiny --size 64 --images 24

One evaluation embeds the images of a class, reads the 242 sentences of `winclip` and takes the
metrics; an ablation does that and then judges variants. The last column is its time in evaluations.
"""

import argparse
import time

from fewshot_ad.api import Preprocess
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.methods.winclip import WinClip
from fewshot_ad.prompts import PromptSet, load_prompts
from fewshot_ad.studies.prompt_ablation import ablate, drops
from fewshot_ad.studies.prompt_scoring import QUICK_SIZE, embed_query


def with_groups(prompts: PromptSet, n_variants: int) -> PromptSet:
    """The set with as many further groups, all different, as make ``n_variants`` variants."""
    pairs = [
        (first, second)
        for index, first in enumerate(prompts.templates)
        for second in prompts.templates[index + 1 :]
    ]
    missing = n_variants - len(drops(prompts))
    groups = {f"pair {index}": pair for index, pair in enumerate(pairs[:missing])}
    return PromptSet(**{**vars(prompts), "groups": {**prompts.groups, **groups}})


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="random:ViT-B-16-plus-240")
    parser.add_argument("--size", type=int, default=240)
    parser.add_argument("--images", type=int, default=8, help="normal, and as many anomalous")
    parser.add_argument("--variants", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    wanted = parser.parse_args()
    method = WinClip(
        backbone=wanted.backbone, preprocess=Preprocess(wanted.size), device=wanted.device
    )
    source = load_dataset("synthetic")
    draw = {"shots": [0], "seeds": [0], "query_limit": wanted.images}
    (episode,) = episodes(source, "screw", **draw)
    method.embed_prompts(load_prompts("minimal"), "warm-up")
    began = time.perf_counter()
    (outcome,) = evaluate(method, source, [episode], eval_size=QUICK_SIZE)
    evaluation = time.perf_counter() - began
    prompts = with_groups(load_prompts("winclip"), wanted.variants)
    print(f"{len(episode.query)} images; one evaluation: {evaluation:.2f} s")
    for metric in ("i_auroc", "p_auroc"):
        classes = (embed_query(method, source, episode, metric) for _ in range(1))
        found = ablate(prompts, classes, metric)
        assert abs(found.full["screw"] - outcome.row.metrics()[metric]) < 1e-3
        print(
            f"{len(found.worths)} variants by {metric}: {found.variant_seconds:.2f} s, "
            f"{found.variant_seconds / evaluation:.2f} evaluations"
        )


if __name__ == "__main__":
    main()
