"""``fewshot-ad serve``: refusals before anything is loaded, a word to the careless, a clean end."""

import http.client
import json
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from painted import Painted

from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.cli import load_command
from fewshot_ad.inspection import Inspector
from fewshot_ad.serving.listening import address_of, is_loopback, listen, warn_of_an_open_door

PLATES = Painted()
PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()


@pytest.mark.parametrize("line", re.findall(r"^(?:\w+=\S+ )?(fewshot-ad serve.*)$", PAGE, re.M))
def test_the_commands_of_the_page_parse(line):
    _, name, *arguments = shlex.split(line)
    assert load_command(name).make_context(line, arguments).params["part"] == Path("part.fsad")


def test_the_limits_of_the_page_are_those_of_the_command():
    given = load_command("serve").make_context("serve", ["part.fsad"]).params
    assert given["max_pixels"] == 50_000_000
    stated = re.findall(r"\(?`--([a-z-]+)`,? \(?(\d+)\b", PAGE.replace(" million", "000000"))
    assert len(stated) == 4
    for name, value in stated:
        assert given[name.replace("-", "_")] == int(value)


def test_without_the_extra_its_name_is_told(monkeypatch, cli):
    monkeypatch.delitem(sys.modules, "fewshot_ad.serving.service", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    result = cli("serve", "part.fsad")
    assert result.exit_code == 2
    assert result.stderr == (
        'error: serve needs uvicorn, which is not installed: pip install "fewshot-ad[serve]"\n'
    )


def test_an_empty_token_is_refused(monkeypatch, cli):
    pytest.importorskip("uvicorn", reason="the extra [serve] is missing")
    monkeypatch.setenv("FEWSHOT_AD_TOKEN", " ")
    result = cli("serve", "part.fsad")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: the token is empty")


def test_an_address_that_is_taken_or_not_of_this_machine_is_refused():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert address_of(taken) == f"http://127.0.0.1:{port}"
        with pytest.raises(FewShotError, match=f"at 127.0.0.1:{port}: Address already in use;"):
            listen("127.0.0.1", port)
    with pytest.raises(FewShotError, match=r"cannot listen at 192.0.2.1:80: .*; choose another"):
        listen("192.0.2.1", 80)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "camera-7"])
def test_an_open_door_is_told_of(host):
    assert not is_loopback(host)
    with pytest.warns(UserWarning, match=f"^{host} can be reached from other machines, and no"):
        warn_of_an_open_door(host, None)


def test_a_guarded_or_own_door_is_not():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_an_open_door("0.0.0.0", "secret")
        for own in ("127.0.0.1", "::1", "localhost"):
            warn_of_an_open_door(own, None)


@pytest.fixture
def running(tmp_path, monkeypatch):
    """The command in a process of its own, and where it answers."""
    pytest.importorskip("uvicorn", reason="the extra [serve] is missing")
    normals = [PLATES.read_image(sample) for sample in PLATES.train("plate")[:3]]
    small = {"backbone": "random:tiny", "preprocess": Preprocess(size=32)}
    Inspector.from_normals(normals, **small).save(tmp_path / "part.fsad")
    monkeypatch.setenv("FEWSHOT_AD_TOKEN", "secret")
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    command = [sys.executable, "-m", "fewshot_ad", "serve", "part.fsad", "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().startswith("part: NOT OK above ")
        address = re.match(r"answering at http://(.+)/predict;", process.stdout.readline())[1]
        yield process, address
        process.kill()


TOKEN = {"Authorization": "Bearer secret"}


def resident(address):
    """Megabytes that the service tells Prometheus of."""
    asked = urllib.request.Request(f"http://{address}/metrics", headers=TOKEN)
    with urllib.request.urlopen(asked) as answer:
        told = re.search(rb"^process_resident_memory_bytes (.*)$", answer.read(), re.MULTILINE)
    return float(told[1]) / 2**20


@pytest.mark.slow
def test_it_answers_until_a_signal_comes(running):
    process, address = running
    with urllib.request.urlopen(f"http://{address}/healthz") as answer:
        assert json.load(answer)["status"] == "ok"
    assert resident(address) > 0
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert said == "ended: all that was accepted has been answered\n"
    assert errors == ""
    assert process.returncode == 0


@pytest.mark.slow
def test_memory_stays_flat_over_ten_thousand_requests(running):
    from requesting import form, photos  # which need the extra

    _, address = running
    kind = TOKEN | {"Content-Type": "multipart/form-data; boundary=mark"}
    bodies = [form(each) for each in photos()]

    def ask(count):
        with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
            for number in range(count):
                connection.request("POST", "/predict", bodies[number % len(bodies)], kind)
                with connection.getresponse() as answer:
                    assert answer.status == 200
                    answer.read()

    def resident_after(count):
        with ThreadPoolExecutor(8) as pool:
            assert len([*pool.map(ask, [count // 8] * 8)]) == 8
        return resident(address)

    before = resident_after(1000)
    assert resident_after(10_000) < before + 8
