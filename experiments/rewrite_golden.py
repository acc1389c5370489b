"""Write tests/golden/<method>.json for every method, or for those that are named: make golden."""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from fewshot_ad.checks import shrunk
from fewshot_ad.checks.trial import fingerprint, maker
from fewshot_ad.methods import list_methods, load_method

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
TRAINED = ("meta_trained", "target_tuned", "supervised", "synthetic")
TOLERANCE, TRAINED_TOLERANCE = 1e-4, 1e-2  # training amplifies what another processor rounds


def rewrite(name: str) -> None:
    """Compute and write the golden file of one method."""
    method = load_method(name)
    tolerance = TRAINED_TOLERANCE if method.track in TRAINED else TOLERANCE
    with TemporaryDirectory() as folder:
        found = fingerprint(maker(shrunk(method, inner_size=None), Path(folder)))
    lines = [f'"relative_tolerance": {tolerance}']
    lines += [f"{json.dumps(key)}: {json.dumps(values)}" for key, values in found.items()]
    (GOLDEN / f"{name}.json").write_text("{\n " + ",\n ".join(lines) + "\n}\n")
    print(f"{name}: image scores {min(found['image_score'])} to {max(found['image_score'])}")


for chosen in sys.argv[1:] or list_methods():
    rewrite(chosen)
