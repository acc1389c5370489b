"""The contract of a method, shipped so that strangers' methods can be held to it as ours are.

    from fewshot_ad.checks import check_method, shrunk
    check_method(shrunk(MyMethod()))

Every check takes ``make``, which gives a fresh method that is ready for ``fit``: one that is
meta-trained has read its checkpoint. A broken promise is a ``ContractError`` that says which.
"""

import inspect
import json
import re
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from fewshot_ad.api import (
    FewShotError,
    MetaTrained,
    Method,
    NotFittedError,
    Prediction,
)
from fewshot_ad.checks.trial import (
    KNOWN,
    SHOTS,
    Make,
    maker,
    meta_trained,
    outcome,
    query,
    shrunk,
    support,
    truth,
)
from fewshot_ad.evaluation.checkpoints import load_checkpoint
from fewshot_ad.evaluation.metrics import image_metrics

__all__ = ["CHECKS", "EXEMPTIONS", "Check", "ContractError", "check_method", "exemption", "shrunk"]

Check = Callable[[Make], None]

EXEMPTIONS: dict[tuple[str, str], str] = {
    ("WinClip", "check_anomalies_score_higher"): "towers with random weights share no meaning of "
    "words and images; tests/methods/test_winclip.py places the prototypes instead",
    ("DRAEM", "check_anomalies_score_higher"): "a few steps mark nothing yet; "
    "tests/methods/test_image_methods.py trains longer, on an obvious square",
    ("UNetSegmenter", "check_anomalies_score_higher"): "a few steps mark nothing yet; "
    "tests/methods/test_image_methods.py trains longer, on an obvious square",
    ("SimpleNet", "check_anomalies_score_higher"): "six steps teach a discriminator of noise "
    "nothing; tests/methods/test_simplenet.py trains one for longer",
}
"""(name of the class, name of the check): why that method is let off that check."""


class ContractError(AssertionError):
    """A method breaks a promise; the message says which one."""


def check_method(method: Method) -> None:
    """Hold a method to every check from which it is not exempt.

    Args:
        method: unfitted; see ``shrunk`` for what makes this quick.

    Raises:
        ContractError: a promise is broken.
    """
    with TemporaryDirectory() as folder:
        make = maker(method, Path(folder))
        for check in CHECKS:
            if exemption(method, check) is None:
                check(make)


def exemption(method: Method, check: Check) -> str | None:
    """Why a method is let off a check, None where it is not."""
    return EXEMPTIONS.get((type(method).__name__, check.__name__))


def check_defaults(make: Make) -> None:
    """The class constructs without arguments and without reading a file or a network."""
    type(make())()


def check_fields(make: Make) -> None:
    """Fields are keyword-only, kept as they were given, and params() goes through JSON."""
    method = make()
    for field in fields(method):
        _require(
            bool(field.kw_only) or not field.init, f"the field {field.name} is not keyword-only"
        )
    given = {field.name: getattr(method, field.name) for field in fields(method) if field.init}
    copy = type(method)(**given)
    for name, value in given.items():
        _require(getattr(copy, name) == value, f"the field {name} is not stored as it was given")
    json.dumps(method.params(), allow_nan=False)


def check_docstring(make: Make) -> None:
    """The docstring of the class or its module names the paper: a year and an address."""
    method = type(make())
    text = f"{sys.modules[method.__module__].__doc__} {inspect.getdoc(method)}"
    _require(re.search(r"\b(19|20)\d\d\b", text) is not None, "the docstring has no year")
    _require(
        re.search(r"https?://", text) is not None, "the docstring has no address (https://...)"
    )


def check_not_fitted(make: Make) -> None:
    """``predict`` before ``fit``, and ``fit`` before meta-training, raise NotFittedError."""
    method = make()
    _refuses(lambda: method.predict(query(method)), "predict before fit", NotFittedError)
    if isinstance(method, MetaTrained):
        raw = method.variant()
        _refuses(lambda: raw.fit(support(method)), "fit before meta_train", NotFittedError)


def check_fit_returns_self(make: Make) -> None:
    """``fit`` returns the method itself."""
    method = make()
    _require(method.fit(support(method)) is method, "fit does not return self")


def check_output(make: Make) -> None:
    """Scores and maps: one per image, map the size of the images, float32, finite, on the CPU."""
    method = make()
    prediction = outcome(method)
    n, _, height, width = query(method).shape
    for name, values, shape in (
        ("image_score", prediction.image_score, (n,)),
        ("anomaly_map", prediction.anomaly_map, (n, height, width)),
    ):
        _require(values.shape == shape, f"{name} has shape {tuple(values.shape)}, not {shape}")
        _require(values.dtype == torch.float32, f"{name} is {values.dtype}, not float32")
        _require(bool(values.isfinite().all()), f"{name} has NaN or infinite values")
        _require(values.device.type == "cpu", f"{name} is on {values.device}, not on the CPU")
        _require(not values.requires_grad, f"{name} carries gradients")


def check_anomalies_score_higher(make: Make) -> None:
    """Anomalous images of a drawn class score higher than normal ones: I-AUROC above one half."""
    method = make()
    scores = outcome(method).image_score
    auroc = image_metrics(scores.numpy(), truth(method).numpy()).i_auroc
    _require(auroc is not None and auroc > 0.5, f"I-AUROC on drawn images is {auroc}")


def check_same_seed(make: Make) -> None:
    """Two methods of one seed give the same bits, and leave the global random state alone."""
    of_torch, of_numpy = torch.get_rng_state(), repr(np.random.get_state())  # noqa: NPY002
    _same(outcome(make()), outcome(make()), "two runs with one seed")
    _require(torch.equal(of_torch, torch.get_rng_state()), "torch's global randomness was used")
    unused = of_numpy == repr(np.random.get_state())  # noqa: NPY002
    _require(unused, "NumPy's global randomness was used")


def check_second_fit(make: Make) -> None:
    """A second ``fit`` equals a fresh one: nothing leaks from episode to episode."""
    used = make()
    helpful = replace(support(used), images=query(used))  # if it were kept
    used.fit(helpful).predict(query(used))
    _same(outcome(used), outcome(make()), "a second fit and a fresh one")


def check_predict_changes_nothing(make: Make) -> None:
    """Other images between two calls of ``predict`` change nothing."""
    method = make()
    first = outcome(method)
    method.predict(query(method, KNOWN[0]))
    _same(first, method.predict(query(method)), "two calls of predict")


def check_single_image(make: Make) -> None:
    """An image alone scores as in a batch, unless the method belongs to the batched track."""
    method = make()
    if method.track == "batched":
        return
    whole, images = outcome(method), query(method)
    for index in (0, len(images) - 1):
        alone = method.predict(images[index : index + 1])
        there = Prediction(
            whole.image_score[index : index + 1], whole.anomaly_map[index : index + 1]
        )
        _close(alone, there, f"image {index} alone and in a batch")


def check_no_images(make: Make) -> None:
    """An empty batch has no scores and no maps, or is refused in a way the user understands."""
    method = make()
    images = query(method)[:0]
    try:
        prediction = method.fit(support(method)).predict(images)
    except FewShotError:
        return
    except Exception as error:
        raise ContractError(f"no images end in {type(error).__name__}: {error}") from error
    shapes = tuple(prediction.image_score.shape), tuple(prediction.anomaly_map.shape)
    wanted = (0,), (0, *images.shape[-2:])
    _require(shapes == wanted, f"no images give scores and maps of shapes {shapes}, not {wanted}")


def check_shots(make: Make) -> None:
    """Works with the fewest shots it promises, with 1 and with 4, and refuses fewer."""
    method = make()
    for shots in sorted({method.min_shots, max(1, method.min_shots), max(SHOTS, method.min_shots)}):
        prediction = method.fit(support(method, shots)).predict(query(method))
        _require(bool(prediction.image_score.isfinite().all()), f"{shots} shots: scores not finite")
    if method.min_shots > 0:
        few = support(method, method.min_shots - 1)
        _refuses(lambda: method.fit(few), f"fit with {method.min_shots - 1} shots", FewShotError)


def check_inputs_untouched(make: Make) -> None:
    """``fit`` and ``predict`` leave the tensors they are given as they were."""
    method = make()
    given, images = support(method), query(method)
    shown, judged = given.images.clone(), images.clone()
    method.fit(given).predict(images)
    _require(torch.equal(given.images, shown), "fit changed the support images")
    _require(torch.equal(images, judged), "predict changed the query images")


def check_same_training(make: Make) -> None:
    """Meta-training twice with one seed gives the same bits, whatever the global state."""
    method = make()
    if not isinstance(method, MetaTrained):
        return
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(method.seed + 1)
        again = meta_trained(method)
    _same(outcome(method), outcome(again), "two meta-trainings with one seed")


def check_round_trip(make: Make) -> None:
    """``save`` and ``load`` keep what was meta-trained, to the bit."""
    method = make()
    if not isinstance(method, MetaTrained):
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "again.safetensors"
        method.save(path)
        again = load_checkpoint(method, path)
    _same(outcome(method), outcome(again), "a method and its saved copy")


CHECKS: tuple[Check, ...] = (
    check_defaults,
    check_fields,
    check_docstring,
    check_not_fitted,
    check_fit_returns_self,
    check_output,
    check_anomalies_score_higher,
    check_same_seed,
    check_second_fit,
    check_predict_changes_nothing,
    check_single_image,
    check_no_images,
    check_shots,
    check_inputs_untouched,
    check_same_training,
    check_round_trip,
)


def _require(holds: bool, promise: str) -> None:
    if not holds:
        raise ContractError(promise)


def _refuses(act: Callable[[], object], what: str, kind: type[FewShotError]) -> None:
    try:
        act()
    except kind:
        return
    raise ContractError(f"{what} does not raise {kind.__name__}")


def _same(one: Prediction, other: Prediction, what: str) -> None:
    equal = torch.equal(one.image_score, other.image_score)
    _require(equal and torch.equal(one.anomaly_map, other.anomaly_map), f"{what} differ")


def _close(one: Prediction, other: Prediction, what: str) -> None:
    """Equal up to what another order of the same sums does to float32."""
    for name in ("image_score", "anomaly_map"):
        a, b = getattr(one, name), getattr(other, name)
        near = torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
        _require(near, f"{what}: {name} differs by up to {float((a - b).abs().max()):.3g}")
