"""``fewshot-ad episodes``: draw manifests, look at them, and check them against images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from fewshot_ad.episodes import Manifest

app = typer.Typer(no_args_is_help=True)

ManifestName = Annotated[
    str,
    typer.Argument(metavar="NAME|PATH", help="A shipped manifest, or the path of a .json file."),
]
DatasetName = Annotated[
    str,
    typer.Option("--dataset", metavar="NAME[:ROOT]", help="A dataset, with the folder it lies in."),
]


@app.command("draw")
def draw_command(
    dataset: DatasetName,
    out: Annotated[Path, typer.Option(help="The file to write; it must not exist.")],
    max_shots: Annotated[int, typer.Option(help="Images per class and seed.")] = 16,
    seeds: Annotated[int, typer.Option(help="Number of draws; the seeds count from 0.")] = 5,
) -> None:
    """Draw a support for every class of a dataset and write them as a manifest."""
    from fewshot_ad.api import FewShotError
    from fewshot_ad.data import load_dataset
    from fewshot_ad.episodes import draw_manifest, save_manifest

    if seeds < 1:
        raise FewShotError(f"--seeds is {seeds}: expected at least 1")
    manifest = draw_manifest(load_dataset(dataset), range(seeds), max_shots, out.name)
    save_manifest(manifest, out)
    typer.echo(f"wrote {out}; {_extent(manifest)}")


@app.command("show")
def show_command(
    manifest: ManifestName,
    target_class: Annotated[str, typer.Option(help="List every image of this class.")] = "",
) -> None:
    """Print what a manifest holds: the start of every list, or one class in full."""
    from fewshot_ad.episodes import leak_warning, load_manifest

    loaded = load_manifest(manifest)
    typer.echo(f"{loaded.name} for {loaded.dataset}; {_extent(loaded)}")
    for key in ("rule", "source", "notes"):
        if text := getattr(loaded, key):
            typer.echo(f"{key}: {text}")
    if target_class:
        _print_lists(loaded, target_class)
    else:
        Console().print(_overview(loaded))
    for class_name in [target_class] if target_class else loaded.leaks:
        if warning := leak_warning(loaded, class_name):
            typer.echo(f"warning: {warning}")


@app.command("check")
def check_command(manifest: ManifestName, dataset: DatasetName) -> None:
    """Compare a manifest with a dataset, by names and by content; exit code 1 on findings."""
    from fewshot_ad.data import load_dataset
    from fewshot_ad.episodes import check_manifest, load_manifest

    loaded = load_manifest(manifest)
    findings = check_manifest(loaded, load_dataset(dataset))
    for finding in findings:
        typer.echo(finding)
    if findings:
        raise typer.Exit(1)
    typer.echo(f"{loaded.name} fits {loaded.dataset}; {_extent(loaded)}")


@app.command("list")
def list_command() -> None:
    """Print the shipped manifests."""
    from fewshot_ad.episodes import list_manifests, load_manifest

    table = Table("manifest", "dataset", "classes", "seeds", "max shots", "leaks")
    for name in list_manifests():
        manifest = load_manifest(name)
        counts = (len(manifest.classes), len(manifest.seeds), manifest.max_shots, _leaks(manifest))
        table.add_row(name, manifest.dataset, *map(str, counts))
    Console().print(table)


def _overview(manifest: "Manifest") -> Table:
    table = Table("class", "seed", "images", "the first of them")
    for seed, lists in manifest.support.items():
        for class_name, paths in lists.items():
            first = escape(" ".join(Path(path).name for path in paths[:4]))
            table.add_row(escape(class_name), str(seed), str(len(paths)), first)
    return table


def _print_lists(manifest: "Manifest", target_class: str) -> None:
    for seed in manifest.seeds:
        for shot, path in enumerate(manifest.paths(seed, target_class), start=1):
            typer.echo(f"seed {seed}, shot {shot}: {path}")


def _extent(manifest: "Manifest") -> str:
    counts = (len(manifest.classes), len(manifest.seeds), manifest.max_shots)
    return "classes: {}, seeds: {}, shots: up to {}".format(*counts)


def _leaks(manifest: "Manifest") -> int:
    return sum(map(len, manifest.leaks.values()))
