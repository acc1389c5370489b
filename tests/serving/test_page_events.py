"""What touching the page does: sessions apart, photos that wait, progress, errors in one line."""

import json
import os
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from painted import MeanColour, Painted
from PIL import Image

import fewshot_ad.cli
from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.cli import load_command
from fewshot_ad.inspection import Inspector
from fewshot_ad.methods import load_method
from fewshot_ad.serving import page
from fewshot_ad.serving.page_events import Work, _on_slider
from fewshot_ad.serving.page_session import Setup

PLATES = Painted(n_train=8)
SETUP = Setup(method=MeanColour())
SMALL = Preprocess(size=64)


class Told:
    """Stands for Gradio's progress."""

    def __init__(self):
        self.steps = []

    def __call__(self, step, desc):
        self.steps.append((*step, desc))


@pytest.fixture
def files(tmp_path):
    """Normals, and new photos."""

    def stored(samples, label):
        for n, sample in enumerate(samples):
            Image.fromarray(PLATES.read_image(sample)).save(tmp_path / f"{label}-{n}.png")
        return sorted(map(str, tmp_path.glob(f"{label}-*.png")))

    return stored(PLATES.train("plate")[:6], "normal"), stored(PLATES.test("plate"), "new")


def test_photos_wait_for_a_part_and_are_judged_when_it_is_there(files):
    work, told = Work(SETUP, None), Told()
    session = work.judge(None, files[1], told)
    assert session.judged == []
    assert work.learn(session, *files, "plate", 20.0, told) is session
    assert len(session.judged) == 8
    assert session.inspector.rule.far == 0.2
    fitted = [step for step in told.steps if step[2].startswith("Judging each normal")]
    judged = [step for step in told.steps if step[2].startswith("Judging new")]
    assert [step[:2] for step in fitted] == [(n, 6) for n in range(7)]
    assert [step[:2] for step in judged] == [(n, 8) for n in range(9)]


def test_visitors_share_a_part_but_not_what_they_do_with_it(files):
    given = Inspector.from_normals(files[0], MeanColour(), far=0.2)
    work = Work(SETUP, given)
    one, other = work.begin(), work.begin()
    work.judge(one, files[1], Told())
    work.move(one, 50.0)
    assert (one.inspector.rule.far, other.inspector.rule.far, given.rule.far) == (0.5, 0.2, 0.2)
    assert len(one.judged) == 8
    assert other.judged == []
    work.learn(other, files[1][:4], None, "other", 20.0, Told())
    assert one.inspector.normals == given.normals
    assert one.inspector.method is given.method
    (again,) = one.inspector.predict(files[1][7])
    assert again.score == next(v.score for v in one.judged if v.name == "new-7.png")


def test_the_slider_waits_for_a_part(files):
    session = Work(SETUP, None).move(None, 5.0)
    assert session.inspector is None


@pytest.mark.parametrize(("far", "shown"), [(0.2, 20.0), (0.0001, 0.1), (0.9, 50.0)])
def test_the_slider_shows_the_nearest_rate_it_has(far, shown):
    assert _on_slider(far) == pytest.approx(shown)


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(page, "find_spec", lambda _: None)
    with pytest.raises(FewShotError, match=r"pip install 'fewshot-ad\[app\]'"):
        page.serve_page(SETUP)


def test_the_command_says_so_before_anything_else(monkeypatch, cli, tmp_path):
    monkeypatch.setattr(page, "find_spec", lambda _: None)
    result = cli("app", tmp_path / "absent.fsad")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: the page needs Gradio")


@pytest.fixture
def without_gradio(monkeypatch):
    """Everything but the page itself; the server is not run, and gives what it would serve."""
    uvicorn = pytest.importorskip("uvicorn", reason="the extra 'app' is not installed")
    served = []
    monkeypatch.setattr(page, "load_gradio", lambda: None)
    monkeypatch.setattr("fewshot_ad.cli.page.load_gradio", lambda: None)
    monkeypatch.setattr(page, "page_app", lambda *given: given)
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: served.append(self.config.app))
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    return served


def test_a_taken_port_is_one_line(cli, without_gradio):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = cli("app", "--port", taken.getsockname()[1], "--method", "strangers:NearestEdges")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: cannot listen at 127.0.0.1")
    assert result.stderr.count("\n") == 1


def test_the_command_begins_with_its_file_and_says_where_the_page_is(
    cli, without_gradio, files, tmp_path
):
    method = load_method("residual_distance", backbone="random:tiny", preprocess=SMALL)
    Inspector.from_normals(files[0], method, far=0.25).save(tmp_path / "part.fsad")
    result = cli("app", tmp_path / "part.fsad", "--port", 0, "--method", "strangers:NearestEdges")
    assert result.exit_code == 0
    assert "the page is at http://127.0.0.1:" in result.stdout
    ((setup, inspector, host),) = without_gradio
    assert type(setup.method).__name__ == "NearestEdges"
    assert inspector.rule.far == 0.25
    assert host == "127.0.0.1"


def test_an_open_door_is_told_of_and_what_was_sent_is_removed(without_gradio):
    with pytest.warns(UserWarning, match="everybody there may use the page"):
        page.serve_page(SETUP, host="0.0.0.0", port=0, on_ready=lambda _: None)
    folders = []
    page.serve_page(
        SETUP, port=0, on_ready=lambda _: folders.append(Path(os.environ["GRADIO_TEMP_DIR"]))
    )
    assert folders[0].name.startswith("fewshot-ad-")
    assert not folders[0].exists()


def test_loading_the_command_leaves_the_command_line_as_it_is():
    load_command("app")
    assert fewshot_ad.cli.app.info.name == "fewshot-ad"


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gradio") is None, reason="the extra 'app' is not installed")
def test_nothing_is_open_that_need_not_be_and_errors_are_lines():
    ran = subprocess.run(  # Gradio leaves event loops open, which would fail other tests
        [sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=300, check=True
    )
    found = json.loads(ran.stdout)
    assert found["message"].startswith("no normal photo was given")
    assert not found["printed"]
    assert not found["analytics"]
    assert not found["api"]
    assert found["clean"] == [600, 3600]
    assert found["events"] == 6
    assert found["turns"] == [["inspector", 1]]
    assert found["visible"] == ["private"]


PROBE = """
import json
from fewshot_ad.methods import load_method
from fewshot_ad.serving.page import lay_out, load_gradio
from fewshot_ad.serving.page_events import Work, _on_slider
from fewshot_ad.serving.page_session import Setup

gradio = load_gradio()
blocks = lay_out(gradio, Work(Setup(method=load_method("residual_distance")), None))
events = list(blocks.fns.values())
try:
    next(one.fn for one in events if one.name == "learn")(None, [], [], "part", 1.0)
except gradio.Error as error:
    found = {"message": error.message, "printed": error.print_exception}
working = [one for one in events if one.fn is not None]
print(json.dumps(found | {
    "analytics": blocks.analytics_enabled,
    "api": blocks.api_open,
    "clean": blocks.delete_cache,
    "turns": sorted({(one.concurrency_id, one.concurrency_limit) for one in working}),
    "visible": sorted({one.api_visibility for one in events}),
    "events": len(working),
}))
"""
