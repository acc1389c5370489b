"""Scripts that take hours cannot run here; what they ask for must at least exist."""

import importlib.util
from pathlib import Path

import pytest

from fewshot_ad.cli.settings import with_settings
from fewshot_ad.methods import list_methods, load_method
from fewshot_ad.parts import residual_learning
from fewshot_ad.parts.meta_training import Course

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, EXPERIMENTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VARIANTS = script("ablations").VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_every_ablation_changes_something(name: str) -> None:
    words = VARIANTS[name]
    options = dict.fromkeys(words[::2])
    assert set(options) <= {"--method", "--set"}
    method = load_method(words[1])
    changed = with_settings(method, words[3::2])
    assert (changed.params() != method.params()) == ("--set" in options)


def test_selection_on_test_watches_every_selection() -> None:
    module = script("selection_on_test")
    with module.WatchedCourse.watching():
        assert issubclass(residual_learning.Course, Course)
        assert residual_learning.Course is not Course
    assert residual_learning.Course is Course


def test_the_tables_on_the_pages_are_those_that_their_script_writes() -> None:
    module = script("methods_table")
    for block, page in module.BLOCKS.items():
        text = page.read_text()
        assert module.with_table(text, block, module.table(block)) == text
    assert all(f"`{name}`" in module.table("methods") for name in list_methods())


def test_the_cost_of_a_study_is_work_shared_and_never_less_than_one_chain() -> None:
    module = script("scale")
    found = module.cost(2.0, 3600.0, {"a": [10, 30], "b": [20]})
    assert found.cells == 3 * 1 * 10
    assert sorted(found.jobs) == [200.0, 400.0, 600.0]  # 10 cells of each image
    assert found.hours(1) == pytest.approx((1200 + 2 * 3600) / 3600)
    assert found.hours(64) == pytest.approx((600 + 3600) / 3600)
    plain = module.cost(2.0, None, {"a": [10, 30], "b": [20]})
    assert plain.hours(1) == pytest.approx(1200 / 3600)
    counted = module.counted_datasets()
    assert sum(counted["visa"]) == 2162
    assert len(counted["mvtec_3d"]) == 10
