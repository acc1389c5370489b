"""Residuals of the known classes: each image against supports of its own class, never itself."""

import hashlib
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_ad.api import FewShotError, KnownClasses, Preprocess
from fewshot_ad.parts.data_parallel import dealt_out, n_processes, told_to_all
from fewshot_ad.parts.maps import mask_to_grid
from fewshot_ad.parts.residual_stage import ResidualStage
from fewshot_ad.parts.training import progress_bar

REMEMBERED_BYTES = 2**31
POOL = 4  # supports are drawn from so many times the images they need: reading more buys nothing


@dataclass(frozen=True)
class LabelledResiduals:
    """Residual maps of one class against one support, one tensor per level.

    Attributes:
        maps: [n c h w] per level.
        cells: which positions hold a defect, [n h w] per level.
        is_anomalous: per image, on the CPU.
    """

    maps: list[Tensor]
    cells: list[Tensor]
    is_anomalous: Bool[Tensor, " n"]

    def batch(self, rows: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Maps and cells of some images."""
        return [maps[rows] for maps in self.maps], [cells[rows] for cells in self.cells]

    def level(self, number: int) -> tuple[Tensor, Tensor]:
        """Maps and cells of one level."""
        return self.maps[number], self.cells[number]


def known_residuals(
    known: KnownClasses,
    preprocess: Preprocess,
    stage: ResidualStage,
    *,
    shots: int,
    supports: int,
    seed: int,
) -> dict[str, list[LabelledResiduals]]:
    """Residuals of every labelled image of every known class, once per drawn support.

    Supports come from the train normals, labelled images from the test split: no image is ever
    matched with itself (the released ResAD code lets that happen). A class has the same residuals
    whatever other classes are known, and is remembered for the next run that knows it: leaving each
    class out in turn costs one extraction. Processes that share a training extract some classes
    each and tell the others.

    Args:
        known: the classes.
        preprocess: geometry and normalisation of the images.
        stage: images to features to residuals.
        shots: support images of a draw, or as many as there are.
        supports: draws per class.
        seed: of the draws.

    Returns:
        A list with one entry per support, by class.

    Raises:
        FewShotError: a class has no train normal, or no labelled image.
    """
    found: dict[str, list[LabelledResiduals]] = {}
    with progress_bar() as bar:
        own = dealt_out(known.names)
        task = bar.add_task("residuals of the known classes", total=len(own))
        for name in own:
            key = (known.digest_of(name), preprocess, stage, shots, supports, seed)
            if key not in _remembered:
                generator = torch.Generator().manual_seed(_seed_of(name, seed))
                pools = _draw_supports(known, name, preprocess, shots, supports, generator)
                _remember(key, _against(known, name, preprocess, stage, pools))
            found[name] = _remembered[key]
            bar.advance(task)
    return found if n_processes() == 1 else _of_all(known.names, found, supports)


_remembered: OrderedDict[Hashable, list[LabelledResiduals]] = OrderedDict()


def _remember(key: Hashable, found: list[LabelledResiduals]) -> None:
    """Keep what was found, and forget the oldest beyond ``REMEMBERED_BYTES``."""
    _remembered[key] = found
    while sum(map(_bytes, _remembered.values())) > REMEMBERED_BYTES and len(_remembered) > 1:
        _remembered.popitem(last=False)


def _bytes(of_class: list[LabelledResiduals]) -> int:
    return sum(levels.nbytes for one in of_class for levels in (*one.maps, *one.cells))


def _seed_of(name: str, seed: int) -> int:
    digest = hashlib.sha256(f"{name} {seed}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _draw_supports(
    known: KnownClasses,
    name: str,
    preprocess: Preprocess,
    shots: int,
    supports: int,
    generator: torch.Generator,
) -> list[Float[Tensor, "n 3 h w"]]:
    batches: list[Tensor] = []
    for batch in known.normals(name, preprocess):
        batches.append(batch.images)
        if sum(map(len, batches)) >= POOL * shots * supports:
            break
    if not batches:
        raise FewShotError(f"the known class {name} has no train normal to draw a support from")
    images = torch.cat(batches)
    orders = [torch.randperm(len(images), generator=generator) for _ in range(supports)]
    return [images[order[:shots]] for order in orders]


def _against(
    known: KnownClasses,
    name: str,
    preprocess: Preprocess,
    stage: ResidualStage,
    pools: list[Tensor],
) -> list[LabelledResiduals]:
    supports = [stage.embed_once(images) for images in pools]
    rows: list[list[LabelledResiduals]] = [[] for _ in supports]
    for batch in known.labelled(name, preprocess):
        queries = stage.embed_once(batch.images)
        cells = [_on_grid(batch.masks, maps) for maps in queries]
        for support, row in zip(supports, rows, strict=True):
            row.append(
                LabelledResiduals(stage.subtract_once(queries, support), cells, batch.is_anomalous)
            )
    if not rows[0]:
        raise FewShotError(f"the known class {name} has no labelled image to learn from")
    return [_joined(row) for row in rows]


def _of_all(
    names: tuple[str, ...], found: dict[str, list[LabelledResiduals]], supports: int
) -> dict[str, list[LabelledResiduals]]:
    """What every process found, in all of them."""
    flat = {
        name: [each for one in of_class for each in (*one.maps, *one.cells, one.is_anomalous)]
        for name, of_class in found.items()
    }
    return {
        name: _parted(of_class, supports) for name, of_class in told_to_all(names, flat).items()
    }


def _parted(tensors: list[Tensor], supports: int) -> list[LabelledResiduals]:
    width = len(tensors) // supports
    levels = width // 2
    starts = range(0, len(tensors), width)
    parts = [tensors[start : start + width] for start in starts]
    return [LabelledResiduals(part[:levels], part[levels:-1], part[-1]) for part in parts]


def _on_grid(masks: Bool[Tensor, "b H W"], maps: Float[Tensor, "b c h w"]) -> Bool[Tensor, "b h w"]:
    return mask_to_grid(masks, (maps.shape[-2], maps.shape[-1])).to(maps.device)


def _joined(batches: list[LabelledResiduals]) -> LabelledResiduals:
    def levels(parts: list[list[Tensor]]) -> list[Tensor]:
        return [torch.cat(of_level) for of_level in zip(*parts, strict=True)]

    return LabelledResiduals(
        levels([batch.maps for batch in batches]),
        levels([batch.cells for batch in batches]),
        torch.cat([batch.is_anomalous for batch in batches]),
    )
