"""What every method promises of ``fit``, ``predict``, ``save`` and ``load``."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from fewshot_ad.api import MetaTrained, NotFittedError
from fewshot_ad.checks.promises import require, require_finite, require_refusal, require_same
from fewshot_ad.checks.trial import (
    FEW,
    KNOWN,
    SHOTS,
    Make,
    meta_trained,
    outcome,
    query,
    support,
    usual,
)
from fewshot_ad.evaluation.checkpoints import load_checkpoint


def check_not_fitted(make: Make) -> None:
    """``predict`` before ``fit``, and ``fit`` before meta-training, raise NotFittedError."""
    method = make()
    require_refusal(lambda: method.predict(query(method)), "predict before fit", NotFittedError)
    if isinstance(method, MetaTrained):
        raw = method.variant()
        require_refusal(lambda: raw.fit(support(method)), "fit before meta_train", NotFittedError)


def check_fit_returns_self(make: Make) -> None:
    """``fit`` returns the method itself, and what it learned is no parameter."""
    method = make()
    before = method.params()
    require(method.fit(support(method)) is method, "fit does not return self")
    require(method.params() == before, "fit changes params()")


def check_variant_forgets(make: Make) -> None:
    """A variant of a fitted method has learned nothing, and takes nothing away from it."""
    method = make()
    images = query(method)[:FEW]
    first = method.fit(support(method)).predict(images)
    copy = method.variant()
    require_refusal(lambda: copy.predict(images), "predict of a variant", NotFittedError)
    require_same(first, method.predict(images), "predictions before and after variant()")


def check_second_fit(make: Make) -> None:
    """A second ``fit`` equals a fresh one: nothing leaks from episode to episode."""
    used = make()
    helpful = replace(support(used), images=query(used))  # if it were kept
    used.fit(helpful).predict(query(used)[:FEW])
    require_same(outcome(used), usual(make), "a second fit and a fresh one")


def check_predict_changes_nothing(make: Make) -> None:
    """Other images between two calls of ``predict`` change nothing."""
    method = make()
    images = query(method)[:FEW]
    first = method.fit(support(method)).predict(images)
    method.predict(query(method, KNOWN[0])[:FEW])
    require_same(first, method.predict(images), "two calls of predict")


def check_shots(make: Make) -> None:
    """Works with the fewest shots it promises and with 1, as with 4, and refuses fewer."""
    method = make()
    for shots in sorted({method.min_shots, max(1, method.min_shots)} - {SHOTS}):
        prediction = method.fit(support(method, shots)).predict(query(method)[:FEW])
        require_finite(prediction, f"{shots} shots")
    if method.min_shots > 0:
        few = support(method, method.min_shots - 1)
        require_refusal(lambda: method.fit(few), f"fit with {method.min_shots - 1} shots")


def check_inputs_untouched(make: Make) -> None:
    """``fit`` and ``predict`` leave the tensors they are given as they were."""
    method = make()
    given, images = support(method), query(method)[:FEW]
    shown, judged = given.images.clone(), images.clone()
    method.fit(given).predict(images)
    require(torch.equal(given.images, shown), "fit changed the support images")
    require(torch.equal(images, judged), "predict changed the query images")


def check_same_training(make: Make) -> None:
    """Meta-training twice with one seed gives the same bits, whatever the global state."""
    method = make()
    if not isinstance(method, MetaTrained):
        return
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(method.seed + 1)
        again = meta_trained(method)
    require_same(usual(make), outcome(again), "two meta-trainings with one seed")


def check_round_trip(make: Make) -> None:
    """``save`` and ``load`` keep what was meta-trained, to the bit."""
    method = make()
    if not isinstance(method, MetaTrained):
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "again.safetensors"
        method.save(path)
        again = load_checkpoint(method, path)
    require_same(usual(make), outcome(again), "a method and its saved copy")
