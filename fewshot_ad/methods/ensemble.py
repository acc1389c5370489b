"""Ensemble: the mean of what several methods say, each on the scale of its normal images.

MAEDAY: MAE for few and zero shot AnomalY-Detection. Schwartz, Arbelle, Karlinsky, Harary,
Scheidegger, Doveh, Giryes. CVIU 241, 2024. https://arxiv.org/abs/2211.14307

Its authors add the scores of MAEDAY and PatchCore: failing to redraw an image and being far from
normal patches err on different images. Here any methods are added. What a member says of support
images on which it was not fitted gives a mean and a deviation, and its scores become z-scores.

Not the paper's: how scores come to one scale, of which it says too little. Fitting costs up to nine
times as much as that of all members. Without support there is no scale, so 0 shots are refused,
unless ``calibration=none`` adds the scores as they are.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.api import (
    FewShotError,
    MetaTrained,
    Method,
    NotFittedError,
    Prediction,
    Preprocess,
    Support,
    Track,
)
from fewshot_ad.methods import load_method
from fewshot_ad.parts.calibration import Calibration, calibrate
from fewshot_ad.parts.field_types import check_field_types
from fewshot_ad.parts.frames import fit_maps, reframe, reframe_support
from fewshot_ad.parts.parameters import check_parameters
from fewshot_ad.parts.support import check_support

__all__ = ["Ensemble"]

SHARED = ("seed", "device", "preprocess")
MOST_TO_LEAST: tuple[Track, ...] = (
    "batched",
    "supervised",
    "target_tuned",
    "synthetic",
    "training_free",
)


class _Fitted(NamedTuple):
    method: Method
    calibration: Calibration


@dataclass(kw_only=True, eq=False)
class Ensemble(Method):
    """Weighted mean of z-scores of other methods.

    Its track is the most demanding one among its members. Meta-trained members are refused.

    Attributes:
        members: names of methods, as ``maeday,patchcore``; none twice.
        parameters: of members that are not at their defaults, by the name of the member; seed,
            device and preprocess are those of the ensemble.
        weights: of the members, in their order; empty for equal ones.
        calibration: where the scale of a member comes from. ``held_out``: every support image is
            left out once (in 8 folds at most) and judged; one image alone, or as few as the member
            needs, are judged in altered copies. ``copies``: always that. ``none``: scores as they
            are.
    """

    recipe_of_its_own: ClassVar[int] = 1
    members: tuple[str, ...] = ("maeday", "patchcore")
    parameters: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    weights: tuple[float, ...] = ()
    calibration: Literal["held_out", "copies", "none"] = "held_out"
    fitted_: list[_Fitted] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(self)
        _check_names(self.members, self.parameters)
        _check_weights(self.weights, len(self.members))
        _check_tracks({name: self._member(name) for name in self.members})

    @property
    def track(self) -> Track:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The most demanding of the members'."""
        tracks = {member.track for member in self._members}
        return next(track for track in MOST_TO_LEAST if track in tracks)

    @property
    def min_shots(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the members need, and one for the scale."""
        needed = max(member.min_shots for member in self._members)
        return needed if self.calibration == "none" else max(1, needed)

    @property
    def recipe(self) -> int:
        """Rises when that of a member does, since the results are others then."""
        return self.recipe_of_its_own + sum(getattr(m, "recipe", 1) - 1 for m in self._members)

    @property
    def backbone(self) -> str | None:
        """Those of the members, once each."""
        return _joined([getattr(member, "backbone", None) for member in self._members])

    @property
    def weights_digest(self) -> str | None:
        """Those of the members, once each."""
        return _joined([getattr(member, "weights_digest", None) for member in self._members])

    @property
    def prompts(self) -> str | None:
        """The prompt set that a member reads, since the classes it was chosen on are no targets."""
        sets = (getattr(member, "prompts", None) for member in self._members)
        return next((name for name in sets if name is not None), None)

    def params(self) -> dict[str, Any]:
        """With all parameters of the members, not only those that were changed."""
        of_members = {
            name: {key: value for key, value in member.params().items() if key not in SHARED}
            for name, member in zip(self.members, self._members, strict=True)
        }
        return super().params() | {"parameters": of_members}

    def fit(self, support: Support) -> "Ensemble":
        """Fit every member, and learn its scale from the support."""
        check_support(support, self.min_shots)
        self.fitted_ = [self._fitted(member, support) for member in self._members]
        return self

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Weighted mean of the members' z-scores, of images and of pixels."""
        if self.fitted_ is None:
            raise NotFittedError("Ensemble has no members fitted yet: call fit(support) first")
        size = images.shape[-2], images.shape[-1]
        weights = torch.tensor(self.weights or [1.0] * len(self.members))
        image_score, anomaly_map = torch.zeros(len(images)), torch.zeros(len(images), *size)
        for weight, fitted in zip(weights / weights.sum(), self.fitted_, strict=True):
            shown = reframe(images, self.preprocess, fitted.method.preprocess)
            said = fitted.calibration.apply(fitted.method.predict(shown))
            image_score += weight * said.image_score
            anomaly_map += weight * fit_maps(said.anomaly_map, size)
        return Prediction(image_score, anomaly_map)

    @property
    def _members(self) -> list[Method]:
        return [self._member(name) for name in self.members]

    def _member(self, name: str) -> Method:
        """Fresh; one that asks for a frame of its own, as CLIP's, keeps it."""
        given = {key: _hashable(value) for key, value in self.parameters.get(name, {}).items()}
        if given:
            check_field_types(type(load_method(name)), given)
        method = load_method(name, seed=self.seed, device=self.device, **given)
        usual = method.preprocess == Preprocess()
        return method.variant(preprocess=self.preprocess) if usual else method

    def _fitted(self, member: Method, support: Support) -> _Fitted:
        shown = reframe_support(support, self.preprocess, member.preprocess)
        if self.calibration == "none":
            return _Fitted(member.fit(shown), Calibration())
        scale = calibrate(member, shown, self.calibration)
        return _Fitted(member.fit(shown), scale)


def _check_names(members: tuple[str, ...], parameters: dict[str, dict[str, Any]]) -> None:
    if not members or len({*members}) < len(members):
        raise FewShotError(f"members are {members}: expected names of methods, each of them once")
    for name, given in parameters.items():
        if name not in members:
            raise FewShotError(f"parameters are given for {name}, no member of {members}")
        if not isinstance(given, dict):
            raise FewShotError(f"parameters of {name} are {given}: expected a mapping of names")
        shared = sorted({*given} & {*SHARED})
        if shared:
            raise FewShotError(
                f"parameters of {name} hold {', '.join(shared)}: set that of the ensemble"
            )


def _check_weights(weights: tuple[float, ...], n_members: int) -> None:
    fine = all(0 <= weight < float("inf") for weight in weights) and sum(weights) > 0
    if weights and not (fine and len(weights) == n_members):
        raise FewShotError(
            f"weights are {weights}: expected {n_members} numbers, 0 or more and not all 0"
        )


def _check_tracks(members: dict[str, Method]) -> None:
    tracks = [member.track for member in members.values()]
    trained = [
        name
        for name, member in members.items()
        if isinstance(member, MetaTrained) or member.track == "meta_trained"
    ]
    if trained:
        raise FewShotError(
            f"{', '.join(trained)} must be meta-trained, which an ensemble cannot do: choose "
            "members that need no more than a support"
        )
    if "batched" in tracks and {*tracks} - {"batched", "training_free"}:
        raise FewShotError(
            f"members of the tracks {', '.join(tracks)} have no track in common: combine "
            "batched methods with training-free ones"
        )


def _joined(names: list[str | None]) -> str | None:
    return " + ".join(dict.fromkeys(name for name in names if name is not None)) or None


def _hashable(value: Any) -> Any:
    """Files and command lines know lists only, fields of methods are tuples."""
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
