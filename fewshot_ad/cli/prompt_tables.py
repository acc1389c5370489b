"""What ``fewshot-ad prompts`` prints: sets, differences, worths and steps as tables."""

from collections.abc import Iterator, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from fewshot_ad.prompts import LISTS, PromptSet
from fewshot_ad.report.table import EMPTY, MEAN, METRIC_NAMES
from fewshot_ad.studies.prompt_ablation import Ablation
from fewshot_ad.studies.prompt_comparison import COMPARED, Difference
from fewshot_ad.studies.prompt_search import Found

CLASSES_ABREAST = 8


def overview(sets: Sequence[PromptSet]) -> Table:
    """A line per prompt set."""
    table = _table("", "prompts", "where they come from", left=2)
    for name in ("templates", "states", "sentences"):
        table.add_column(name, justify="right")
    for each in sets:
        states = f"{len(each.normal_states)} + {len(each.anomalous_states)}"
        sentences = " + ".join(str(len(side)) for side in each.sentences("object"))
        cells = each.name, each.source, str(len(each.templates)), states, sentences
        table.add_row(*map(escape, cells))
    return table


def card(prompts: PromptSet) -> str:
    """A set as text: where it comes from, its strings, and how classes are spoken of."""
    lines = [f"{prompts.name}: {prompts.source}", *filter(None, [prompts.notes])]
    for name in LISTS:
        listed = getattr(prompts, name)
        times = [
            f" (x{prompts.repeats[text]})" if text in prompts.repeats else "" for text in listed
        ]
        lines.append(f"{len(listed)} {name.replace('_', ' ')}:")
        lines += [f"  {text}{often}" for text, often in zip(listed, times, strict=True)]
    names = [f"{raw}: {spoken}" for raw, spoken in prompts.class_names.items()]
    others = [f"any other class: {prompts.any_class}"] if prompts.any_class else []
    for title, entries in (
        ("class names", names + others),
        ("groups", [f"{name}: {', '.join(words)}" for name, words in prompts.groups.items()]),
        ("overrides", [f"{name}: {', '.join(own)}" for name, own in prompts.overrides.items()]),
        ("chosen on", [*prompts.known]),
    ):
        lines += [f"{title}:", *(f"  {entry}" for entry in entries)] if entries else []
    return "\n".join(lines)


def differences(found: Sequence[Difference]) -> Table:
    """The values of every set, and how they differ from the first one."""
    title = f"percent; differences to {found[0].prompts} in points, 95 % intervals over test images"
    table = _table(title, "class", "prompts", left=2)
    metrics = [name for name in COMPARED if any(each.metric == name for each in found)]
    for name in metrics:
        table.add_column(METRIC_NAMES[name], justify="right")
        table.add_column("difference", justify="right")
    cells = {(each.target_class, each.prompts, each.metric): each for each in found}
    for target_class in dict.fromkeys(each.target_class for each in found):
        for prompts in dict.fromkeys(each.prompts for each in found):
            line = [cells.get((target_class, prompts, name)) for name in metrics]
            told = [cell for each in line for cell in _difference_cells(each)]
            table.add_row(escape(target_class or MEAN), escape(prompts), *told)
        table.add_section()
    return table


def ablation(found: Ablation, metric: str) -> Iterator[Table]:
    """What every string is worth; further classes follow in tables of their own."""
    classes = [*found.full]
    title = f"points of {METRIC_NAMES[metric]} that are lost without it; negative: it does harm"
    for start in range(0, len(classes), CLASSES_ABREAST):
        abreast = classes[start : start + CLASSES_ABREAST]
        table = _table(title, "left out", "", left=2)
        for name in ("mean", *abreast):
            table.add_column(escape(name), justify="right")
        for worth in found.worths:
            cells = [_points(each) for each in (worth.mean, *map(worth.by_class.get, abreast))]
            table.add_row(escape(worth.drop.name), worth.drop.kind, *cells)
        table.add_section()
        mean = sum(found.full.values()) / len(classes)
        full = [f"{100 * each:.1f}" for each in (mean, *(found.full[name] for name in abreast))]
        table.add_row("nothing", f"{METRIC_NAMES[metric]}, percent", *full)
        yield table


def steps(found: Found, metric: str) -> Table:
    """How the set grew."""
    title = f"mean {METRIC_NAMES[metric]} over the known classes, percent"
    table = _table(title, "added", left=1)
    table.add_column("known", justify="right")
    for step in found.steps:
        table.add_row(escape(step.added), f"{100 * step.score:.2f}")
    table.add_section()
    table.add_row("the whole set", f"{100 * found.full_score:.2f}")
    return table


def _table(title: str, *columns: str, left: int) -> Table:
    table = Table(
        title=escape(title) or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for index, name in enumerate(columns):
        table.add_column(name, justify="left" if index < left else "right", overflow="fold")
    return table


def _difference_cells(difference: Difference | None) -> tuple[str, str]:
    if difference is None:
        return EMPTY, EMPTY
    value = f"{100 * difference.value:.1f}"
    low, high = 100 * difference.low, 100 * difference.high
    if difference.difference == low == high == 0:
        return value, ""
    telling = " *" if low > 0 or high < 0 else "  "
    return value, f"{100 * difference.difference:+.1f} \\[{low:+.1f}, {high:+.1f}]{telling}"


def _points(worth: float | None) -> str:
    return EMPTY if worth is None else f"{100 * worth:+.2f}"
