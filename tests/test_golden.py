"""Every method still says of a few drawn images what ``tests/golden`` keeps of it.

A difference is either a mistake or a decision; for a decision run ``make golden``, look at the
diff, and raise the ``recipe`` of the method where its results are no longer the same.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from fewshot_ad.checks import shrunk
from fewshot_ad.checks.trial import fingerprint, maker
from fewshot_ad.methods import list_methods, load_method

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", list_methods())
def test_method_says_what_it_said(name: str, tmp_path: Path) -> None:
    kept = json.loads((GOLDEN / f"{name}.json").read_text())
    found = fingerprint(maker(shrunk(load_method(name), inner_size=None), tmp_path))
    tolerance = kept.pop("relative_tolerance")
    assert found.keys() == kept.keys()
    for values, expected in zip(found.values(), kept.values(), strict=True):
        scale = float(np.abs(expected).max())
        np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance * scale)


def test_every_golden_file_belongs_to_a_method() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(list_methods())
