import pytest
import strangers

from fewshot_ad import methods
from fewshot_ad.api import FewShotError
from fewshot_ad.methods import list_methods, load_method


def refusal(name: str, **params: object) -> str:
    with pytest.raises(FewShotError) as caught:
        load_method(name, **params)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_method_is_called_like_its_file() -> None:
    for name in list_methods():
        assert type(load_method(name)).__module__ == f"fewshot_ad.methods.{name}"
    assert list_methods() == tuple(sorted(list_methods()))


def test_parameters_are_set() -> None:
    method = load_method("patchcore", blur=2.5, levels=(1,))
    assert (method.params()["blur"], method.params()["levels"]) == (2.5, (1,))


def test_a_stranger_is_named_by_its_path() -> None:
    method = load_method("strangers:NearestEdges", cell=4)
    assert isinstance(method, strangers.NearestEdges)
    assert method.cell == 4


def test_a_stranger_may_register_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name, value = "edges", "strangers:NearestEdges"

    registered = {"fewshot_ad.methods": [Point]}
    monkeypatch.setattr(methods, "entry_points", lambda group: registered[group])
    assert isinstance(load_method("edges"), strangers.NearestEdges)
    assert "did you mean 'edges'?" in refusal("edgs")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("patchcor", "no method is called 'patchcor'; did you mean 'patchcore'?"),
        ("quite_other", "known: "),
        ("no_such_module:Class", "cannot be imported (ModuleNotFoundError: "),
        ("strangers:Nobody", "cannot be imported (AttributeError: "),
        (":Class", "cannot be imported (ValueError: "),
        (".relative:Class", "cannot be imported (TypeError: "),
        ("strangers:network", "strangers:network is not a subclass of fewshot_ad.api.Method"),
        ("fewshot_ad.api:Method", "fewshot_ad.api:Method cannot be made of {}: Can't instantiate"),
    ],
)
def test_what_is_no_method_is_refused(name: str, words: str) -> None:
    assert words in refusal(name)


def test_an_unknown_parameter_is_named_with_its_neighbour() -> None:
    words = "no parameter of patchcore is called 'blurr'; did you mean 'blur'?"
    assert refusal("patchcore", blurr=0.1) == words


def test_what_a_method_learns_is_no_parameter() -> None:
    assert "no parameter of patchcore is called 'bank_'" in refusal("patchcore", bank_=None)
