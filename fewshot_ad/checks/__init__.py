"""The contract of a method, shipped so that strangers' methods can be held to it as ours are.

    from fewshot_ad.checks import check_method, shrunk
    check_method(shrunk(MyMethod()))

Every check takes ``make``, which gives a fresh method that is ready for ``fit``: one that is
meta-trained has read its checkpoint. A broken promise is a ``ContractError`` that says which.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from fewshot_ad.api import Method
from fewshot_ad.checks.answers import (
    check_anomalies_score_higher,
    check_constant_images,
    check_no_images,
    check_not_finite,
    check_other_sizes,
    check_output,
    check_same_seed,
    check_single_image,
)
from fewshot_ad.checks.declaration import (
    check_defaults,
    check_docstring,
    check_fields,
    check_impossible_values,
    check_paper,
)
from fewshot_ad.checks.promises import ContractError
from fewshot_ad.checks.protocol import (
    check_fit_returns_self,
    check_inputs_untouched,
    check_not_fitted,
    check_predict_changes_nothing,
    check_round_trip,
    check_same_training,
    check_second_fit,
    check_shots,
    check_variant_forgets,
)
from fewshot_ad.checks.training import check_another_seed, check_divergence
from fewshot_ad.checks.trial import Make, maker, shrunk

__all__ = ["CHECKS", "EXEMPTIONS", "Check", "ContractError", "check_method", "exemption", "shrunk"]

Check = Callable[[Make], None]

EXEMPTIONS: dict[tuple[str, str], str] = {
    ("WinClip", "check_anomalies_score_higher"): "towers with random weights share no meaning of "
    "words and images; tests/methods/test_winclip.py places the prototypes instead",
    ("AnoDDPM", "check_anomalies_score_higher"): "a few steps lead nothing back yet; "
    "tests/methods/test_image_methods.py trains longer, on an obvious square",
    ("DRAEM", "check_anomalies_score_higher"): "a few steps mark nothing yet; "
    "tests/methods/test_image_methods.py trains longer, on an obvious square",
    ("UNetSegmenter", "check_anomalies_score_higher"): "a few steps mark nothing yet; "
    "tests/methods/test_image_methods.py trains longer, on an obvious square",
    ("SimpleNet", "check_anomalies_score_higher"): "six steps teach a discriminator of noise "
    "nothing; tests/methods/test_simplenet.py trains one for longer",
    ("MAEDAY", "check_impossible_values"): "0 steps are its zero-shot form, without any tuning; "
    "tests/methods/test_refused_values.py has what it refuses",
}
"""(name of the class, name of the check): why that method is let off that check."""

CHECKS: tuple[Check, ...] = (
    check_defaults,
    check_fields,
    check_docstring,
    check_paper,
    check_impossible_values,
    check_not_fitted,
    check_fit_returns_self,
    check_variant_forgets,
    check_output,
    check_anomalies_score_higher,
    check_same_seed,
    check_second_fit,
    check_predict_changes_nothing,
    check_single_image,
    check_no_images,
    check_other_sizes,
    check_constant_images,
    check_not_finite,
    check_shots,
    check_inputs_untouched,
    check_another_seed,
    check_divergence,
    check_same_training,
    check_round_trip,
)


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
