import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fewshot_ad.api import Episode, Preprocess
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.memory import memory_line, memory_needed
from fewshot_ad.methods import load_method

MEASURED = """
import json, re
from pathlib import Path
from fewshot_ad.api import Preprocess
from fewshot_ad.data import load_dataset
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.evaluation.memory import memory_needed
from fewshot_ad.methods import load_method

def peak():
    # not getrusage: a process begins with the peak of the one that started it
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

dataset = load_dataset("synthetic")
method = load_method("patchcore").variant(
    backbone="random:tiny", device="cpu", preprocess=Preprocess(size=320)
)
small = method.variant(preprocess=Preprocess(size=32))
list(evaluate(small, dataset, episodes(dataset, "gear", shots=[1], seeds=[0], query_limit=1)))
trials = list(episodes(dataset, "screw", shots=[1, 4], seeds=[0], query_limit=6))
needed, before = memory_needed(method, trials), peak()
list(evaluate(method, dataset, trials))
print(json.dumps([sum(needed.values()), peak() - before]))
"""


@pytest.fixture
def trials() -> list[Episode]:
    dataset = load_dataset("synthetic")
    return list(episodes(dataset, "screw", shots=[1, 4], seeds=[0], query_limit=2))


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are counted in other units elsewhere")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_run_holds_no_more_than_it_is_said_to() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, check=True)
    told, held = json.loads(done.stdout)
    assert held < told < 10 * held


def test_every_part_grows_with_what_it_is_made_of(trials: list[Episode]) -> None:
    method = load_method("patchcore").variant(backbone="random:tiny", device="cpu")
    needed = memory_needed(method, trials)
    more_images = [replace(each, query=each.query * 3) for each in trials]
    larger = method.variant(preprocess=Preprocess(size=448))
    assert memory_needed(method, more_images)["maps"] == 3 * needed["maps"]
    assert memory_needed(larger, trials)["bank"] == 4 * needed["bank"]
    assert memory_needed(method, trials[:1])["bank"] == needed["bank"] / 4
    assert memory_needed(method, trials, "native")["maps"] > needed["maps"]
    few = memory_needed(load_method("musc").variant(backbone="random:tiny"), trials)["scores"]
    many = memory_needed(load_method("musc").variant(backbone="random:tiny"), more_images)["scores"]
    assert many > 4 * few


def test_only_a_large_run_is_told_of(trials: list[Episode]) -> None:
    method = load_method("patchcore").variant(backbone="random:tiny", device="cpu")
    assert memory_line([method], [trials], 256) is None
    large = [replace(each, query=each.query * 3000) for each in trials]
    line = memory_line([method], [trials, large], 256)
    assert line is not None
    assert line.startswith("this will hold up to ")
    assert "maps" in line
    twice = memory_line([method], [large, large], 256, workers=2)
    assert twice is not None
    total, double = (float(text.split()[5]) for text in (line, twice))
    assert double == pytest.approx(2 * total, abs=0.11)
