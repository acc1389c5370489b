import ast

import pytest

from fewshot_ad.methods import load_method
from fewshot_ad.studies import analyses
from fewshot_ad.studies import code_digest as module
from fewshot_ad.studies.code_digest import code_digest

CODE = '''"""Words."""
import math

def area(radius):  # a remark
    """More words."""
    return math.pi * radius**2
'''


def digest_of(code: str) -> str:
    return module._without_words(ast.parse(code))


def test_words_do_not_count_and_code_does() -> None:
    plain = digest_of(CODE)
    assert digest_of(CODE.replace("More words", "Others")) == plain
    assert digest_of(CODE.replace("  # a remark", "")) == plain
    assert digest_of(CODE.replace('"""Words."""\n', '"""Other words."""\n\n')) == plain
    assert digest_of(CODE.replace("radius**2", "radius**3")) != plain
    assert digest_of(CODE.replace("import math", "import cmath as math")) != plain


def test_a_method_hangs_on_what_it_imports_and_on_no_other_method() -> None:
    reached = module._reached(("fewshot_ad.methods.patchcore", *module.ALWAYS))
    assert {"fewshot_ad.methods.patchcore", "fewshot_ad.parts.memory_bank"} <= reached
    assert {"fewshot_ad.evaluation.aupro", "fewshot_ad.parts.search"} <= reached  # through others
    assert not any(name.startswith("fewshot_ad.methods.resad") for name in reached)
    assert not any(name.startswith(("fewshot_ad.cli", "fewshot_ad.studies")) for name in reached)


def test_methods_differ_and_parameters_do_not_count() -> None:
    names = ("patchcore", "padim", "strangers:NearestEdges", "strangers:ScaledEdges")
    digests = [code_digest(load_method(name)) for name in names]
    assert len(set(digests)) == 3  # both strangers come from one file
    assert code_digest(load_method("patchcore", seed=7)) == digests[0]


def test_an_edit_of_a_part_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    method = load_method("patchcore")
    before = code_digest(method)
    own = module._digest_of
    monkeypatch.setattr(
        module, "_digest_of", lambda name: own(name) + "edited" * name.endswith("memory_bank")
    )
    module._digest_of_kind.cache_clear()
    try:
        assert code_digest(method) != before
    finally:
        module._digest_of_kind.cache_clear()


def test_what_is_asked_of_a_method_counts_too() -> None:
    method = load_method("patchcore")
    digests = {code_digest(method), *(code_digest(method, each) for each in analyses.CODE.values())}
    assert len(digests) == 1 + len(analyses.CODE)
