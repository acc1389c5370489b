"""The contract lets a sound method pass and catches each kind of broken promise."""

from dataclasses import astuple, dataclass, replace
from pathlib import Path

import pytest
import torch
from strangers import NearestEdges, ScaledEdges, TunedEdges
from torch.nn import functional

from fewshot_ad import checks
from fewshot_ad.api import FewShotError, KnownClasses, Method, Prediction, Preprocess, Support
from fewshot_ad.checks import trial
from fewshot_ad.methods import load_method

SMALL = Preprocess(size=64)


@pytest.mark.parametrize("kind", [NearestEdges, ScaledEdges, TunedEdges])
def test_a_sound_method_passes(kind: type[Method]) -> None:
    checks.check_method(kind(preprocess=SMALL))


def test_every_check_is_run() -> None:
    written = {name for name in vars(checks) if name.startswith("check_")} - {"check_method"}
    assert written == {check.__name__ for check in checks.CHECKS}


def test_every_exemption_names_a_check_and_a_reason() -> None:
    names = {check.__name__ for check in checks.CHECKS}
    for (_, check), reason in checks.EXEMPTIONS.items():
        assert check in names
        assert reason


class Undocumented(NearestEdges):
    """Has neither a year nor an address."""


Undocumented.__module__ = "fewshot_ad.checks"


class NeedsAnArgument(NearestEdges):
    def __init__(self, cell: int, **rest: object) -> None:
        super().__init__(cell=cell, **rest)


class Rounds(NearestEdges):
    def __post_init__(self) -> None:
        super().__post_init__()
        self.preprocess = Preprocess(size=2 * self.preprocess.size)


class Misremembers(NearestEdges):
    PAPER = {"cells": 4}  # noqa: RUF012


class TakesTheDefaultForThePapers(NearestEdges):
    PAPER = {"cell": 8}  # noqa: RUF012


@dataclass(kw_only=True, eq=False)
class BlursByAnything(NearestEdges):
    blur: float = 4.0


class AnswersUnfitted(NearestEdges):
    def predict(self, images: torch.Tensor) -> Prediction:
        if self.bank_ is None:
            return Prediction(torch.zeros(len(images)), torch.zeros(images[:, 0].shape))
        return super().predict(images)


class FitsAnother(NearestEdges):
    def fit(self, support: Support) -> Method:
        super().fit(support)
        return self.variant()


class SharesWhatItLearned(NearestEdges):
    def variant(self, **changes: object) -> Method:
        copy = super().variant(**changes)
        copy.bank_ = self.bank_
        return copy


class Double(NearestEdges):
    def predict(self, images: torch.Tensor) -> Prediction:
        plain = super().predict(images)
        return Prediction(plain.image_score.double(), plain.anomaly_map.double())


class UpsideDown(NearestEdges):
    def predict(self, images: torch.Tensor) -> Prediction:
        plain = super().predict(images)
        return Prediction(-plain.image_score, -plain.anomaly_map)


class Noisy(NearestEdges):
    def predict(self, images: torch.Tensor) -> Prediction:
        plain = super().predict(images)
        return Prediction(plain.image_score + torch.rand(1), plain.anomaly_map)


class Remembers(NearestEdges):
    def fit(self, support: Support) -> Method:
        earlier = self.bank_
        super().fit(support)
        if earlier is not None:
            self.bank_ = torch.cat([earlier, self.bank_])
        return self


class Learns(NearestEdges):
    def predict(self, images: torch.Tensor) -> Prediction:
        plain = super().predict(images)
        self.bank_ = torch.cat([self.bank_, self._cells(images).flatten(0, 2)[:64]])
        return plain


class LooksAround(NearestEdges):
    def predict(self, images: torch.Tensor) -> Prediction:
        plain = super().predict(images)
        return Prediction(plain.image_score / plain.image_score.max(), plain.anomaly_map)


class LooksAtTheBrightest(NearestEdges):
    """The images of the trial hide it, an outlier among them shows it."""

    def predict(self, images: torch.Tensor) -> Prediction:
        plain = super().predict(images)
        gain = 1 + 1e-5 * images.square().amax()
        return Prediction(gain * plain.image_score, plain.anomaly_map)


class NeedsAnImage(NearestEdges):
    def predict(self, images: torch.Tensor) -> Prediction:
        each = [super(NeedsAnImage, self).predict(image[None]) for image in images]
        return Prediction(*(torch.cat(parts) for parts in zip(*map(astuple, each), strict=True)))


class MakesSquares(NearestEdges):
    def predict(self, images: torch.Tensor) -> Prediction:
        plain = super().predict(images)
        size = (images.shape[-1], images.shape[-1])
        maps = functional.interpolate(plain.anomaly_map[:, None], size)[:, 0]
        return Prediction(plain.image_score, maps)


class CountsInDeviations(NearestEdges):
    def predict(self, images: torch.Tensor) -> Prediction:
        plain = super().predict(images)
        return Prediction(plain.image_score, plain.anomaly_map / self.bank_.std())


class OverlooksHoles(NearestEdges):
    def fit(self, support: Support) -> Method:
        return super().fit(replace(support, images=support.images.nan_to_num()))


class TakesNone(NearestEdges):
    def fit(self, support: Support) -> Method:
        if len(support.images) == 0:
            return self
        return super().fit(support)


class Normalises(NearestEdges):
    def fit(self, support: Support) -> Method:
        support.images.clamp_(-1, 1)
        return super().fit(support)


class HasOneSeed(TunedEdges):
    def _tuned(self) -> torch.Tensor:
        return torch.ones(1)


class TrainsOnWhatever(TunedEdges):
    def _tuned(self) -> torch.Tensor:
        try:
            return super()._tuned()
        except FewShotError:
            return torch.rand(1, generator=torch.Generator().manual_seed(self.seed))


class SaysTooLittle(TunedEdges):
    def _tuned(self) -> torch.Tensor:
        try:
            return super()._tuned()
        except FewShotError:
            raise FewShotError("the loss is infinite") from None


class SpeaksAfterwards(TunedEdges):
    def fit(self, support: Support) -> Method:
        NearestEdges.fit(self, support)
        self.gain_ = torch.ones(1)
        self.gain_ = self._tuned()
        return self


class Forgets(ScaledEdges):
    def load(self, path: Path) -> ScaledEdges:
        super().load(path)
        self.scale_ = self.scale_ + torch.rand(1, generator=torch.Generator().manual_seed(id(self)))
        return self


class GuessesAScale(ScaledEdges):
    def meta_train(self, known: KnownClasses, *, resume: Path | None = None) -> ScaledEdges:
        self.scale_ = torch.rand(1)
        return self


BROKEN: list[tuple[checks.Check, type[Method]]] = [
    (checks.check_defaults, NeedsAnArgument),
    (checks.check_fields, Rounds),
    (checks.check_docstring, Undocumented),
    (checks.check_paper, Misremembers),
    (checks.check_paper, TakesTheDefaultForThePapers),
    (checks.check_impossible_values, BlursByAnything),
    (checks.check_not_fitted, AnswersUnfitted),
    (checks.check_fit_returns_self, FitsAnother),
    (checks.check_variant_forgets, SharesWhatItLearned),
    (checks.check_output, Double),
    (checks.check_anomalies_score_higher, UpsideDown),
    (checks.check_same_seed, Noisy),
    (checks.check_second_fit, Remembers),
    (checks.check_predict_changes_nothing, Learns),
    (checks.check_single_image, LooksAround),
    (checks.check_single_image, LooksAtTheBrightest),
    (checks.check_no_images, NeedsAnImage),
    (checks.check_other_sizes, MakesSquares),
    (checks.check_constant_images, CountsInDeviations),
    (checks.check_not_finite, OverlooksHoles),
    (checks.check_shots, TakesNone),
    (checks.check_inputs_untouched, Normalises),
    (checks.check_another_seed, HasOneSeed),
    (checks.check_divergence, TrainsOnWhatever),
    (checks.check_divergence, SaysTooLittle),
    (checks.check_divergence, SpeaksAfterwards),
    (checks.check_same_training, GuessesAScale),
    (checks.check_round_trip, Forgets),
]


@pytest.mark.parametrize(("check", "kind"), BROKEN)
def test_a_broken_promise_is_caught(
    check: checks.Check, kind: type[Method], tmp_path: Path
) -> None:
    make = trial.maker(kind(preprocess=SMALL, cell=8), tmp_path)
    with pytest.raises(TypeError if kind is NeedsAnArgument else checks.ContractError):
        check(make)


def test_every_check_catches_something() -> None:
    assert {check for check, _ in BROKEN} == set(checks.CHECKS)


def test_what_is_tried_may_keep_the_size_it_sees_images_at() -> None:
    method = load_method("autoencoder")
    assert trial.shrunk(method).params()["inner_size"] == trial.INNER_SIZE
    assert trial.shrunk(method, inner_size=None).params()["inner_size"] == 64
    assert "inner_size" not in trial.shrunk(load_method("patchcore")).params()
