"""A part under inspection: fitted on its normal photos, with a threshold from these alone."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fewshot_ad.api import FewShotError, Method, Support
from fewshot_ad.evaluation.reading import batched, read_ahead
from fewshot_ad.images import prepare, restore_map
from fewshot_ad.inspection.calibrating import (
    AT_ONCE,
    calibrate,
    calibrate_held_out,
    check_finite,
    joined_calibration,
)
from fewshot_ad.inspection.choosing import choose_method, stacked
from fewshot_ad.inspection.packing import Contents, pack, unpack
from fewshot_ad.inspection.photos import (
    Normal,
    Photo,
    Photos,
    Unreadable,
    View,
    ViewGuard,
    list_photos,
    read_normals,
    read_photo,
    warn_of_unlike_normals,
    without_copies,
)
from fewshot_ad.inspection.thresholds import (
    FAR,
    Calibration,
    Rule,
    promise,
    standing_out,
)
from fewshot_ad.inspection.verdicts import Scale, Verdict, find_regions, scale_of
from fewshot_ad.parts.passing import passing_once

DEFAULT_METHOD = "residual_distance"


@dataclass(kw_only=True, eq=False)
class Inspector:
    """Decides whether photos of a part are normal; made by ``from_normals`` or ``load``.

    Attributes:
        name: of the part.
        method: fitted on all normals.
        normals: their names.
        squares: the normals as bytes at the method's size: what a refit takes.
        views: sizes and kinds of the photos it was fitted on.
        calibration: what normals get that were not fitted on.
        rule: how scores become decisions.
    """

    name: str
    method: Method
    normals: tuple[str, ...]
    squares: Sequence[UInt8[np.ndarray, "side side 3"]]
    views: tuple[View, ...]
    calibration: Calibration
    rule: Rule

    @classmethod
    def from_normals(
        cls,
        photos: Photos,
        method: str | Method = DEFAULT_METHOD,
        *,
        checkpoint: str | Path | None = None,
        far: float = FAR,
        tail: bool = False,
        name: str = "part",
        on_refit: Callable[[], None] | None = None,
        **params: Any,
    ) -> "Inspector":
        """Learn how normal photos look, and where the threshold must lie.

        Args:
            photos: a folder, a path, an array, or a list of paths and arrays; arrays are bytes
                [h w], [h w 3] or [n h w 3] in RGB.
            method: a name of ``fewshot_ad.list_methods()``, or a method.
            checkpoint: of a meta-trained method; without one it is trained on the drawn classes,
                once, and found in the cache from then on.
            far: the wanted rate of false alarms.
            tail: extrapolate the threshold by a fitted tail, see ``thresholds``.
            name: of the part; text-driven methods read it.
            on_refit: told after every refit of the calibration.
            params: fields of the method, as ``backbone="resnet18"``.

        Raises:
            FewShotError: no photo or no readable one, an unknown method or parameter, or a method
                that needs anomalies or judges images together.
        """
        rule = Rule(far, tail)
        chosen = choose_method(method, checkpoint, params)
        given = without_copies(read_normals(photos, chosen.preprocess))
        warn_of_unlike_normals(given)
        squares = [normal.square for normal in given]
        support = Support(name, stacked(squares, chosen))
        calibration = calibrate(chosen, support, altered=tail, on_refit=on_refit)
        inspector = cls(
            name=name,
            method=chosen.fit(support),
            normals=tuple(normal.name for normal in given),
            squares=squares,
            views=tuple(dict.fromkeys(normal.view for normal in given)),
            calibration=calibration,
            rule=rule,
        )
        warn_of_the_calibration(inspector)
        return inspector

    def predict(self, photos: Photos) -> list[Verdict]:
        """Judge photos: a folder, a path, an array, or a list of paths and arrays.

        Raises:
            FewShotError: a photo cannot be read.
        """
        return [*self.predict_each(photos)]

    def predict_each(self, photos: Photos) -> Iterator[Verdict]:
        """The same one after another, for more photos than memory holds.

        Raises:
            FewShotError: a photo cannot be read.
        """
        sources = [*enumerate(list_photos(photos))]
        read = read_ahead(sources, lambda pair: read_photo(pair[1], pair[0]))
        for verdict in self.judge_each(read):
            assert isinstance(verdict, Verdict)
            yield verdict

    def judge_each(
        self, items: Iterable[Photo | Unreadable], guard: ViewGuard | None = None
    ) -> Iterator[Verdict | Unreadable]:
        """Verdicts on photos as they come; what could not be read stays in its place.

        Args:
            items: photos, judged a few at a time.
            guard: of the stream that these are a part of.
        """
        guard = guard or ViewGuard(self.views)
        for batch in batched(items, AT_ONCE):
            photos = [item for item in batch if isinstance(item, Photo)]
            for photo in photos:
                guard.look_at(photo)
            judged = iter(self.judge(photos))
            yield from (item if isinstance(item, Unreadable) else next(judged) for item in batch)

    def judge(self, photos: Sequence[Photo]) -> list[Verdict]:
        """The verdicts on photos that are read already; all at once, so keep them few."""
        if not photos:
            return []
        images = torch.stack([prepare(photo.pixels, self.method.preprocess) for photo in photos])
        with passing_once():
            found = self.method.predict(images)
        check_finite(found, self.method)  # a score that is no number would pass any threshold
        pairs = zip(photos, found.image_score.tolist(), found.anomaly_map, strict=True)
        return [self._verdict(photo, score, one) for photo, score, one in pairs]

    def recalibrate(self, more_normals: Photos) -> "Inspector":
        """Set the threshold anew from normals that nothing was fitted on; returns ``self``.

        They replace leave-one-out scores, and join those of an earlier recalibration. The promise
        is exact then, see ``thresholds``.

        Raises:
            FewShotError: no photo, or no readable one.
        """
        fitted = [
            Normal(name, self.views[0], square)
            for name, square in zip(self.normals, self.squares, strict=True)
        ]
        given = read_normals(more_normals, self.method.preprocess)
        fresh = [one.square for one in without_copies([*fitted, *given]) if one in given]
        if not fresh:
            raise FewShotError(
                "the threshold cannot be set anew from photos that were fitted on; give others"
            )
        found = calibrate_held_out(self.method, stacked(fresh, self.method))
        is_first = self.calibration.source != "held_out"
        joined = found if is_first else joined_calibration(self.calibration, found)
        self.rule.threshold(joined.scores, ())  # a tail may need more scores than there are
        self.calibration = joined
        return self

    def save(self, path: str | Path) -> None:
        """Write everything into one file, see ``packing``.

        Raises:
            FewShotError: it cannot be written, or a parameter is not JSON-able.
        """
        parts = {one.name: getattr(self, one.name) for one in fields(Contents)}
        pack(Path(path), Contents(**parts))

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str = "auto",
        weights_dir: str | Path | None = None,
        trust: bool = False,
    ) -> "Inspector":
        """Open what ``save`` wrote; nothing in the file is run.

        Args:
            path: of the file.
            device: where to run.
            weights_dir: where the weights of the backbone lie, if not in a usual place.
            trust: import code that the file names, for methods and backbones that are not ours.

        Raises:
            FewShotError: see ``packing.unpack``.
        """
        folder = None if weights_dir is None else str(weights_dir)
        found = unpack(Path(path), device=device, weights_dir=folder, trust=trust)
        return cls(**{one.name: getattr(found, one.name) for one in fields(Contents)})

    @property
    def threshold(self) -> float:
        """Images that score more are NOT OK."""
        return self.rule.threshold(self.calibration.scores, self.calibration.altered_scores)

    @property
    def scale(self) -> Scale:
        """On which all maps are painted."""
        return scale_of(self.calibration, self.rule)

    @property
    def promise(self) -> str:
        """What may be expected of false alarms, in one line."""
        return promise(self.calibration, self.rule)

    def decide(self, verdict: Verdict) -> Verdict:
        """The same photo, score and map under the rule as it is now."""
        calibration, scale = self.calibration, self.scale
        is_anomalous = verdict.score > self.threshold
        return replace(
            verdict,
            p_value=self.rule.p_value(
                verdict.score, calibration.scores, calibration.altered_scores
            ),
            is_anomalous=is_anomalous,
            regions=find_regions(verdict.anomaly_map, scale.level, is_anomalous),
            scale=scale,
        )

    def _verdict(self, photo: Photo, score: float, anomaly_map: Float[Tensor, "h w"]) -> Verdict:
        height, width = photo.pixels.shape[:2]
        native = restore_map(anomaly_map, self.method.preprocess, (height, width))
        undecided = Verdict(
            name=photo.name,
            score=score,
            p_value=1.0,
            is_anomalous=False,
            regions=(),
            anomaly_map=native,
            pixels=photo.pixels,
            scale=self.scale,
        )
        return self.decide(undecided)


def warn_of_the_calibration(inspector: Inspector) -> None:
    """Say what is odd: normals that may be defective, and rates that cannot be promised."""
    calibration = inspector.calibration
    if calibration.source != "leave_one_out":
        return
    for index in standing_out(calibration.scores):
        middle = median(calibration.scores)
        warnings.warn(
            f"{inspector.normals[index]} stands out among the normals (score "
            f"{calibration.scores[index]:.4g}, their median {middle:.4g}): look at it, and leave "
            "it out if it is defective, for it hides such defects and makes the threshold too high",
            stacklevel=3,
        )
