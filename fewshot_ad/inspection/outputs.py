"""The folder that decisions go to: a table, JSON lines, overlays and maps, one photo at a time.

=================== ===============================================================================
``decisions.csv``   a line for every photo; boxes as ``left top right bottom area``, joined by ``;``
``decisions.jsonl`` the same as JSON, a line each
``inspection.json`` the part, the threshold, its promise, and the scale of the maps
``overlays/``       every photo with its map painted on it, on one scale for all
``maps/``           every map at its photo's size, as 16-bit PNG or as NPY
=================== ===============================================================================

A line is written when its photo is judged, so that nothing is lost when a line stops.
"""

import csv
import io
import json
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image

from fewshot_ad.evaluation.writing import errors_in_one_line, write_whole
from fewshot_ad.image_files import write_image
from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.inspection.photos import Unreadable
from fewshot_ad.inspection.verdicts import Scale, Verdict

MapFormat = Literal["png", "npy", "none"]
CSV, JSONL, ABOUT = "decisions.csv", "decisions.jsonl", "inspection.json"
COLUMNS = ("image", "decision", "score", "p_value", "n_regions", "area", "boxes")
COLUMNS += ("overlay", "map", "reason")
BELOW, ABOVE = 4, 28  # steps of the scale that 16 bits span around the level


class Grey16(NamedTuple):
    """A map is ``zero + unit * pixel`` of its 16-bit PNG; what is beyond is clipped."""

    zero: float
    unit: float

    def pixels(self, anomaly_map: Float[np.ndarray, "h w"]) -> np.ndarray:
        """The map as 16-bit numbers."""
        steps = np.rint((anomaly_map.astype(np.float64) - self.zero) / self.unit)
        return np.clip(steps, 0, 65535).astype(np.uint16)


def grey16_of(scale: Scale) -> Grey16:
    """The same for all photos of an inspector."""
    step = scale.level - scale.low
    return Grey16(scale.level - BELOW * step, (BELOW + ABOVE) * step / 65535)


class Outputs:
    """Writes what an inspector says into a folder.

    Args:
        out: the folder, made where it is not.
        inspector: whose verdicts come.
        maps: the format of maps, or ``none``.
        overlays: whether to write overlays.
        append: go on with the files of an earlier run in place of beginning anew.

    Raises:
        FewShotError: the folder cannot be written to.
    """

    def __init__(
        self,
        out: Path,
        inspector: Inspector,
        *,
        maps: MapFormat = "png",
        overlays: bool = True,
        append: bool = False,
    ) -> None:
        self._out, self._maps, self._overlays = out, maps, overlays
        self._grey = grey16_of(inspector.scale)
        self._stems: dict[str, str] = {}
        about = _about(inspector) | {"map_png": self._grey._asdict()}
        write_whole(out / ABOUT, json.dumps(about, indent=1).encode())
        if not append or not (out / CSV).exists():
            write_whole(out / CSV, _csv_line(dict(zip(COLUMNS, COLUMNS, strict=True))))
            write_whole(out / JSONL, b"")

    def write(self, verdict: Verdict | Unreadable) -> dict[str, Any]:
        """Write everything of one photo; gives its row.

        Raises:
            FewShotError: the folder cannot be written to, or the disk is full.
        """
        row = verdict.as_row()
        if isinstance(verdict, Verdict):
            row |= self._pictures(verdict)
        self._append(JSONL, json.dumps(row).encode() + b"\n")
        self._append(CSV, _csv_line(_flat(row)))
        return row

    def _pictures(self, verdict: Verdict) -> dict[str, str]:
        stem, found = self._stem(verdict.name), dict[str, str]()
        if self._overlays:
            found["overlay"] = f"overlays/{stem}.png"
            with errors_in_one_line(self._out):
                (self._out / "overlays").mkdir(exist_ok=True)
            write_image(self._out / found["overlay"], verdict.overlay())
        if self._maps != "none":
            found["map"] = f"maps/{stem}.{self._maps}"
            write_whole(self._out / found["map"], self._map(verdict.anomaly_map))
        return found

    def _map(self, anomaly_map: Float[np.ndarray, "h w"]) -> bytes:
        content = io.BytesIO()
        if self._maps == "npy":
            np.save(content, anomaly_map.astype(np.float32), allow_pickle=False)
        else:
            Image.fromarray(self._grey.pixels(anomaly_map)).save(content, "PNG")
        return content.getvalue()

    def _stem(self, name: str) -> str:
        """A name for the pictures of a photo: its stem, numbered where another photo has that."""
        if name not in self._stems:
            taken, stem, number = {*self._stems.values()}, PurePath(name).stem, 1
            while (free := stem if number == 1 else f"{stem}-{number}") in taken:
                number += 1
            self._stems[name] = free
        return self._stems[name]

    def _append(self, name: str, line: bytes) -> None:
        with errors_in_one_line(self._out / name), (self._out / name).open("ab") as file:
            file.write(line)


def _about(inspector: Inspector) -> dict[str, Any]:
    return {
        "part": inspector.name,
        "n_normals": len(inspector.normals),
        "threshold": inspector.threshold,
        "promise": inspector.promise,
        "false_alarm_rate": inspector.rule.far,
        "scale": inspector.scale._asdict(),
    }


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a table: regions in one cell."""
    if "regions" not in row:
        return row
    names = ("left", "top", "right", "bottom", "area")
    boxes = (" ".join(str(region[name]) for name in names) for region in row["regions"])
    total = sum(region["area"] for region in row["regions"])
    return row | {"n_regions": len(row["regions"]), "area": total, "boxes": ";".join(boxes)}


def _csv_line(row: dict[str, Any]) -> bytes:
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerow(row.get(name, "") for name in COLUMNS)
    return content.getvalue().encode(errors="backslashreplace")
