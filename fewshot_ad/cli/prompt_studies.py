"""``fewshot-ad prompts compare | ablate | search``: the studies of prompts."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal, cast

import typer

from fewshot_ad.api import Dataset, Episode, FewShotError
from fewshot_ad.cli import options, prompt_tables
from fewshot_ad.cli.methods import AsJson
from fewshot_ad.cli.running import check_shots
from fewshot_ad.cli.screen import Screen
from fewshot_ad.cli.settings import (
    check_text,
    configured_method,
    parse_eval_size,
    parse_seeds,
    parse_shots,
    parse_target_classes,
    with_options,
)
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.known import LIMIT, KnownImages, parse_known
from fewshot_ad.evaluation.leaks import KnownNames, seen_by
from fewshot_ad.methods.winclip import WinClip
from fewshot_ad.prompts import check_new_file, load_prompts, save_prompts
from fewshot_ad.studies.prompt_ablation import ablate, drops
from fewshot_ad.studies.prompt_comparison import compare
from fewshot_ad.studies.prompt_scoring import (
    QUICK_SIZE,
    EmbeddedClass,
    embed_known,
    embed_query,
    text_method,
)
from fewshot_ad.studies.prompt_search import LEAST_GAIN, check_unseen, described, search

PromptsName = Annotated[
    str, typer.Argument(metavar="NAME|PATH", help="A shipped set, or the path of a .yaml file.")
]
TextBackbone = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A vision transformer of open_clip: ARCHITECTURE.TAG, a file, a folder, or "
        "random:tiny to try commands without weights. [default: that of winclip]",
    ),
]
DatasetSpec = Annotated[
    str,
    typer.Option(metavar="NAME[:ROOT]", help="Where images come from, as folder:path/to/images."),
]
TargetClass = Annotated[
    list[str] | None, typer.Option(metavar="CLASS", help="A class, or 'all'. Repeatable.")
]
Metric = Annotated[
    Literal["i_auroc", "i_ap", "i_f1_max", "p_auroc", "p_ap", "p_f1_max", "aupro"],
    typer.Option(help="What words are worth is counted in this; metrics of pixels take longer."),
]
EvalPixels = Annotated[
    str,
    typer.Option(metavar="PIXELS|native", help="The size at which maps and masks are compared."),
]
QueryLimit = Annotated[
    int | None,
    typer.Option(metavar="N", help="Judge at most so many normal and so many anomalous images."),
]
Trials = list[list[Episode]]


def compare_command(
    prompts: Annotated[
        list[str], typer.Argument(metavar="NAME|PATH...", help="Two sets or more; the first leads.")
    ],
    dataset: DatasetSpec = "synthetic",
    target_class: TargetClass = None,
    method: Annotated[str, typer.Option(help="A method that reads prompts.")] = "winclip",
    shots: Annotated[
        str, typer.Option(metavar="N", help="Normal images that are shown besides.")
    ] = "0",
    seeds: Annotated[
        str,
        typer.Option(
            metavar="N", help="How many draws of the support, or a list; 0 shots need but one."
        ),
    ] = "5",
    backbone: TextBackbone = None,
    weights_dir: options.WeightsDir = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
    eval_size: EvalPixels = "256",
    query_limit: QueryLimit = None,
    as_json: AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Run the same episodes under every prompt set: paired differences with intervals.

    Intervals come from 2000 draws of the test images, and of the supports where there are several,
    the same for every set. They speak of these classes; a star marks those that leave out zero.
    """
    if len(set(prompts)) < max(2, len(prompts)):
        raise FewShotError(f"{', '.join(prompts)}: give two prompt sets or more, each once")
    screen = Screen(quiet=quiet, as_json=as_json)
    source = load_dataset(dataset)
    classes = parse_target_classes(target_class or (), source)
    reader = configured_method(method, settings or (), device, backbone, weights_dir)
    check_text([with_options(reader, method, {"prompts": name}) for name in prompts], classes)
    trials = _trials(source, classes, shots, seeds, query_limit)
    check_shots([reader], chain.from_iterable(trials))
    n_images = len(prompts) * sum(len(each.query) for each in chain.from_iterable(trials))
    with screen.progress(f"scoring {len(prompts)} prompt sets", n_images) as bar:
        found = compare(
            reader,
            prompts,
            source,
            trials,
            eval_size=parse_eval_size(eval_size),
            on_image=lambda *_: bar.advance(),
        )
    if as_json:
        _print_json([asdict(each) for each in found])
        return
    screen.show_tables([prompt_tables.differences(found)])


def ablate_command(
    prompts: PromptsName,
    dataset: DatasetSpec = "synthetic",
    target_class: TargetClass = None,
    metric: Metric = "i_auroc",
    backbone: TextBackbone = None,
    weights_dir: options.WeightsDir = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
    eval_size: EvalPixels = str(QUICK_SIZE),
    query_limit: QueryLimit = None,
    as_json: AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Leave out one template, one state, one group at a time: what each is worth, without support.

    Every image and every sentence is embedded once, so that hundreds of variants take about as long
    as one evaluation. Small differences are noise: `compare` shows how large noise is.
    """
    screen = Screen(quiet=quiet, as_json=as_json)
    source = load_dataset(dataset)
    classes = parse_target_classes(target_class or (), source)
    reader = _reader(prompts, settings, device, backbone, weights_dir, classes)
    found, size = load_prompts(prompts), parse_eval_size(eval_size)
    trials = _trials(source, classes, "0", "1", query_limit)
    check_unseen(source, chain.from_iterable(trials), seen_by(reader))
    embedded = (embed_query(reader, source, trial, metric, size) for (trial,) in trials)
    variants = f"{len(drops(found))} variants of {found.name}"
    with screen.progress(variants, len(drops(found)) * len(classes)) as bar:
        ablation = ablate(found, embedded, metric, bar.advance)
    if as_json:
        _print_json(asdict(ablation))
        return
    screen.show_tables(prompt_tables.ablation(ablation, metric))
    screen.say(
        f"model and images: {ablation.image_seconds:.1f} s; sentences and {variants}: "
        f"{ablation.variant_seconds:.1f} s"
    )


def search_command(
    prompts: PromptsName,
    known: Annotated[
        str,
        typer.Option(
            "--on", metavar="SPEC", help=f"Known classes to choose on: {options.KNOWN_FORM}."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .yaml file to write.")],
    dataset: DatasetSpec = "synthetic",
    target_class: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Report on this unseen class. Repeatable. [default: every class of the dataset "
            "that is not known]",
        ),
    ] = None,
    metric: Metric = "i_auroc",
    beam: Annotated[
        int, typer.Option(metavar="N", help="Sets that are grown side by side; 1 is greedy.")
    ] = 1,
    least_gain: Annotated[
        float, typer.Option(metavar="GAIN", help="A string must add as much, in [0, 1].")
    ] = LEAST_GAIN,
    known_limit: options.KnownLimit = LIMIT,
    backbone: TextBackbone = None,
    weights_dir: options.WeightsDir = None,
    settings: options.Settings = None,
    device: options.Device = "auto",
    eval_size: EvalPixels = "256",
    query_limit: QueryLimit = None,
    as_json: AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Choose templates and states on known classes, write them to a file, report on unseen ones.

    A known class is no target, now or later: the file names its known classes, and `eval` refuses
    them. The report comes once, after the choice; a second choice after a look at it has seen its
    classes.
    """
    check_new_file(out)
    screen = Screen(quiet=quiet, as_json=as_json)
    source = load_dataset(dataset)
    images, classes = _known_and_unseen(known, source, target_class or (), known_limit)
    names = cast(KnownNames, images)
    reader = _reader(prompts, settings, device, backbone, weights_dir, classes)
    trials = _trials(source, classes, "0", "1", query_limit)
    for seen in (names, seen_by(reader)):
        check_unseen(source, chain.from_iterable(trials), seen)
    judges: list[EmbeddedClass] = []
    with screen.progress("embedding known classes", len(images.names)) as bar:
        for name in images.names:
            judges.append(embed_known(reader, images, name, metric))
            bar.advance()
    screen.say(f"choosing on {len(judges)} known classes ...")
    found = search(load_prompts(prompts), judges, metric, beam=beam, least_gain=least_gain)
    save_prompts(described(found, metric, images.names), out)
    report = compare(
        reader,
        [prompts, str(out)],
        source,
        trials,
        eval_size=parse_eval_size(eval_size),
        known=names,
    )
    if as_json:
        _print_json(asdict(found) | {"unseen": [asdict(each) for each in report]})
        return
    screen.show_tables([prompt_tables.steps(found, metric), prompt_tables.differences(report)])
    screen.say(f"{found.n_judged} sets were judged on {len(judges)} known classes; wrote {out}")


def _reader(
    prompts: str,
    settings: Sequence[str] | None,
    device: str,
    backbone: str | None,
    weights_dir: Path | None,
    classes: Sequence[str],
) -> WinClip:
    """WinCLIP as the options want it, its sentences read once for every class."""
    method = configured_method("winclip", settings or (), device, backbone, weights_dir)
    reader = text_method(with_options(method, "winclip", {"prompts": prompts}))
    check_text([reader], classes)
    return reader


def _trials(
    source: Dataset, classes: Sequence[str], shots: str, seeds: str, query_limit: int | None
) -> Trials:
    """The episodes of every class; without a support all seeds are one."""
    numbers, drawn = parse_shots(shots), parse_seeds(seeds)
    if len(numbers) > 1:
        raise FewShotError(f"--shots {shots}: prompts are compared at one number of shots")
    drawn = drawn[:1] if numbers == [0] else drawn
    return [
        [*episodes(source, name, shots=numbers, seeds=drawn, query_limit=query_limit)]
        for name in classes
    ]


def _known_and_unseen(
    spec: str, source: Dataset, targets: Sequence[str], limit: int
) -> tuple[KnownImages, list[str]]:
    """A dataset that ``--on`` names whole stands for its classes less the targets.

    Raises:
        FewShotError: a target is named among the known classes, or no unseen class is left.
    """
    if not targets:
        images = parse_known(spec, limit=limit)
        classes = [name for name in source.classes if f"{source.name}/{name}" not in images.names]
        if not classes:
            raise FewShotError(
                f"--on {spec}: every class of {source.name} is known, none is left to report on; "
                "give a --target-class, or name fewer known classes"
            )
        return images, classes
    classes = parse_target_classes(targets, source)
    less_one = [parse_known(spec, exclude=(source.name, name), limit=limit) for name in classes]
    return less_one[0].without({f"{source.name}/{name}" for name in classes}), classes


def _print_json(content: object) -> None:
    typer.echo(json.dumps(content, indent=2))
