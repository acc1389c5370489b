"""``fewshot-ad episodes``: draw manifests, look at them, and check them against images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
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
    Console().print(f"wrote {out}: {_extent(manifest)}", soft_wrap=True)


@app.command("show")
def show_command(
    manifest: ManifestName,
    target_class: Annotated[str, typer.Option(help="List every image of this class.")] = "",
) -> None:
    """Print what a manifest holds: the start of every list, or one class in full."""
    from fewshot_ad.episodes import leak_warning, load_manifest

    loaded = load_manifest(manifest)
    console = Console()
    console.print(f"[bold]{loaded.name}[/] for {loaded.dataset}: {_extent(loaded)}", soft_wrap=True)
    for key in ("rule", "source", "notes"):
        if text := getattr(loaded, key):
            console.print(f"{key}: {text}", soft_wrap=True, highlight=False)
    console.print(_lists(loaded, target_class) if target_class else _overview(loaded))
    for name in [target_class] if target_class else loaded.leaks:
        if warning := leak_warning(loaded, name):
            console.print(f"[yellow]warning:[/] {warning}", soft_wrap=True, highlight=False)


@app.command("check")
def check_command(manifest: ManifestName, dataset: DatasetName) -> None:
    """Compare a manifest with a dataset, by names and by content; exit code 1 on findings."""
    from fewshot_ad.data import load_dataset
    from fewshot_ad.episodes import check_manifest, load_manifest

    loaded = load_manifest(manifest)
    findings = check_manifest(loaded, load_dataset(dataset))
    console = Console()
    for finding in findings:
        console.print(finding, soft_wrap=True, highlight=False, markup=False)
    if findings:
        raise typer.Exit(1)
    console.print(f"{loaded.name} fits {loaded.dataset}: {_extent(loaded)}", soft_wrap=True)


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
            first = " ".join(Path(path).name for path in paths[:4])
            table.add_row(class_name, str(seed), str(len(paths)), first)
    return table


def _lists(manifest: "Manifest", target_class: str) -> Table:
    columns = [manifest.paths(seed, target_class) for seed in manifest.seeds]
    table = Table("shot", *(f"seed {seed}" for seed in manifest.seeds))
    for shot in range(max(map(len, columns))):
        row = (paths[shot] if shot < len(paths) else "" for paths in columns)
        table.add_row(str(shot + 1), *row)
    return table


def _extent(manifest: "Manifest") -> str:
    counts = (len(manifest.classes), len(manifest.seeds), manifest.max_shots)
    return "classes: {}, seeds: {}, shots: up to {}".format(*counts)


def _leaks(manifest: "Manifest") -> int:
    return sum(map(len, manifest.leaks.values()))
