import pytest

from fewshot_ad import assets
from fewshot_ad.api import FewShotError


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A checkout: the package, and data on the floor beside it."""
    for name in ("b.json", "a.json", ".hidden"):
        (tmp_path / "episodes").mkdir(exist_ok=True)
        (tmp_path / "episodes" / name).write_text(name)
    (tmp_path / "episodes" / "folder").mkdir()
    (tmp_path / "fewshot_ad").mkdir()
    monkeypatch.setattr(assets, "_PACKAGE", tmp_path / "fewshot_ad")
    return tmp_path / "fewshot_ad"


def test_lists_files_sorted(package):
    assert assets.list_assets("episodes") == ("a.json", "b.json")
    assert assets.list_assets("prompts") == ()


def test_finds_a_file_in_a_checkout(package):
    assert assets.asset("episodes", "a.json").read_text() == "a.json"


def test_a_wheel_does_not_look_beside_itself(package):
    shipped = package / "_assets" / "episodes"
    shipped.mkdir(parents=True)
    (shipped / "c.json").write_text("shipped")
    assert assets.list_assets("episodes") == ("c.json",)
    assert assets.asset("episodes", "c.json").read_text() == "shipped"


@pytest.mark.parametrize("name", ["c.json", "../fewshot_ad", "", "folder", ".hidden"])
def test_what_is_not_listed_is_not_found(package, name):
    with pytest.raises(FewShotError, match="no file in episodes/ is called"):
        assets.asset("episodes", name)


def test_this_checkout_has_its_folders():
    root = assets._PACKAGE.parent
    for kind in ("prompts", "episodes"):
        if (root / kind).is_dir():
            assert set(assets.list_assets(kind)) <= {p.name for p in (root / kind).iterdir()}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("screww", "did you mean 'screw'?"),
        ("SCREW", "did you mean 'screw'?"),
        ("x", "known: carpet, screw"),
    ],
)
def test_an_unknown_name_suggests(name, hint):
    error = assets.unknown_name("class", name, ["screw", "carpet"])
    assert isinstance(error, FewShotError)
    assert str(error) == f"no class is called {name!r}; {hint}"


def test_an_unknown_name_among_none():
    assert str(assets.unknown_name("class", "x", [])) == "no class is called 'x'; known: none"
