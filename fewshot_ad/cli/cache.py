"""``fewshot-ad cache``: what is kept on disk so that no run computes it again."""

import json
import time
from dataclasses import asdict
from typing import Annotated, Literal

import typer

from fewshot_ad.cli.methods import AsJson
from fewshot_ad.evaluation.checkpoints import cached_checkpoints, clear_checkpoints
from fewshot_ad.parts.cache_folder import cache_root
from fewshot_ad.parts.feature_store import (
    VARIABLE,
    clear_features,
    feature_folder,
    store_limit,
    stored_features,
)

app = typer.Typer(no_args_is_help=True)

What = Annotated[
    Literal["features", "checkpoints", "all"],
    typer.Argument(help="What to delete; checkpoints of meta-training take minutes to make again."),
]
DAY = 24 * 3600


@app.command("show")
def show_command(as_json: AsJson = False) -> None:
    """Show what the cache holds: features per extractor, and checkpoints of meta-training.

    It lies in $FEWSHOT_AD_CACHE, else in the cache folder of the user. Features are kept there
    while $FEWSHOT_AD_FEATURE_CACHE says how many gigabytes they may take.
    """
    features, checkpoints = stored_features(feature_folder()), cached_checkpoints()
    sizes = [path.stat().st_size for path in checkpoints]
    if as_json:
        facts = {
            "folder": str(cache_root()),
            "feature_limit": store_limit(),
            "features": [asdict(one) for one in features],
            "checkpoints": {"files": len(sizes), "bytes": sum(sizes)},
        }
        typer.echo(json.dumps(facts, indent=2))
        return
    limit = f"up to {_size(store_limit())}" if store_limit() else f"switched off; set {VARIABLE}=10"
    typer.echo(f"{cache_root()}")
    typer.echo(f"features: {_size(sum(one.bytes for one in features))} ({limit})")
    for one in features:
        days = (time.time() - one.last_used) / DAY
        used = f"used {days:.0f} days ago" if days >= 1 else "used today"
        typer.echo(f"  {one.extractor}: {one.images} images, {_size(one.bytes)}, {used}")
    typer.echo(f"checkpoints: {len(sizes)} files, {_size(sum(sizes))}")


@app.command("clear")
def clear_command(what: What = "features") -> None:
    """Delete what the cache holds; a run that is using it computes again what it needs."""
    freed = 0
    if what in ("features", "all"):
        freed += clear_features(feature_folder())
    if what in ("checkpoints", "all"):
        freed += clear_checkpoints()
    typer.echo(f"{_size(freed)} freed in {cache_root()}")


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
