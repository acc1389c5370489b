"""Protocol and provenance: under which rules, by what code, on what machine, from which images."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fewshot_ad.evaluation.results import ResultRow
from fewshot_ad.report.entrants import League

PROTOCOL = (
    "Supports are nested draws from the train normals, or those of a manifest.",
    "Ground truth is mask > 0; maps meet masks over the whole image; normal images count in pixel "
    "metrics. AP is average precision; AUPRO is exact, to a false-positive rate of 0.3, over 0.3.",
    "The mean is over classes first. ± is the deviation over seeds; intervals are 95 % bootstrap "
    "intervals over classes and the trials within them.",
    "Raw scores: nothing is rescaled over the test set. What cannot be computed stays empty.",
    "A class under test is never among the known ones; tracks are never ranked together.",
    "Tests are two-sided signed-rank tests over classes, adjusted by Holm for all pairs of a "
    "track; brackets join methods whose average ranks are closer than Nemenyi's critical "
    "difference.",
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The parameters of an entrant, as JSON."""

    label: str
    track: str
    text: str


def facts(rows: Sequence[ResultRow]) -> list[tuple[str, str]]:
    """What the rows say of their origin: name and values, each value once."""
    versions = {f"{row.package_version} ({row.git_commit or 'no commit known'})" for row in rows}
    weights = {f"{row.backbone} {row.weights_digest or ''}".strip() for row in rows if row.backbone}
    times = sorted(row.time for row in rows)
    return [
        ("code", _listed(versions)),
        ("backbones and weights", _listed(weights)),
        ("devices", _listed({row.device for row in rows})),
        ("datasets", _listed({row.dataset for row in rows})),
        ("supports", _listed({row.manifest for row in rows})),
        ("maps compared at", _listed({_size(row) for row in rows})),
        ("known classes", _listed({name for row in rows for name in row.known})),
        ("contents of query images", f"{len({row.query_digest for row in rows})} distinct digests"),
        ("computed", f"{times[0]} to {times[-1]}" if times[0] != times[-1] else times[0]),
    ]  # fmt: skip


def _size(row: ResultRow) -> str:
    return "native size" if row.eval_size == "native" else f"{row.eval_size} px"


def settings(leagues: Iterable[League]) -> list[Settings]:
    """The parameters of every entrant; the row has them all."""
    found: list[Settings] = []
    for league in leagues:
        for entrant in league.entrants:
            row = entrant.rows[0]
            values = {**row.params, "recipe": row.recipe, **row.extra}
            text = json.dumps(values, indent=1, sort_keys=True)
            found.append(Settings(entrant.label, league.track.replace("_", "-"), text))
    return found


def _listed(values: Iterable[str], most: int = 12) -> str:
    ordered = sorted(values)
    more = f" and {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(ordered[:most]) + more or "none"
