"""The page in a real browser: photos in, decisions out, the slider, the file; silent, and alone."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from painted import Painted
from PIL import Image

from fewshot_ad.api import Preprocess
from fewshot_ad.inspection import Inspector

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
PATIENCE = 120  # seconds
PLATES = Painted(n_train=8)
METHOD = ["--backbone", "random:tiny", "--set", "preprocess.size=64"]
SAME = {"backbone": "random:tiny", "preprocess": Preprocess(size=64)}
NAME = "plate {{1+1}} ${1+1} <b>"
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the name that WebDriver gives to elements

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(None in (CHROMIUM, DRIVER), reason="no Chromium with its driver is here"),
    pytest.mark.skipif(find_spec("gradio") is None, reason="the extra 'app' is not installed"),
]


class Browser:
    """Chromium by the WebDriver protocol, which is JSON over HTTP."""

    def __init__(self, driver_port, downloads, width=1280, height=900):
        self._root = f"http://127.0.0.1:{driver_port}/session"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic"]
        arguments += ["--no-first-run", "--disable-background-networking", "--disable-sync"]
        arguments += ["--disable-component-update", f"--window-size={width},{height}"]
        options = {"binary": CHROMIUM, "args": arguments}
        options["prefs"] = {"download.default_directory": str(downloads)}
        wanted = {"goog:chromeOptions": options, "browserName": "chrome"}
        wanted["goog:loggingPrefs"] = {"browser": "ALL", "performance": "ALL"}
        self._root += (
            "/" + self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        )

    def _ask(self, verb, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._root + path, data, method=verb)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)["value"]

    def open(self, address):
        self._ask("POST", "/url", {"url": address})

    def run(self, script, *arguments):
        return self._ask("POST", "/execute/sync", {"script": script, "args": arguments})

    def find(self, css):
        return self._ask("POST", "/element", {"using": "css selector", "value": css})[ELEMENT]

    def type(self, css, text):
        self._ask("POST", f"/element/{self.find(css)}/value", {"text": text})

    def click(self, css):
        self._ask("POST", f"/element/{self.find(css)}/click", {})

    def upload(self, css, files):
        self.type(css, "\n".join(map(str, files)))

    def text(self, css):
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css)

    def until(self, script="true", wait_for=lambda: True):
        end = time.monotonic() + PATIENCE
        while not (self.run(f"return {script}") and wait_for()):
            assert time.monotonic() < end, f"never true: {script}; page: {self.text('body')}"
            time.sleep(0.1)

    def log(self, kind):
        return self._ask("POST", "/se/log", {"type": kind})

    def devtools(self, command, **values):
        self._ask("POST", "/goog/cdp/execute", {"cmd": command, "params": values})

    def look(self, file, width, height, *, dark):
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.devtools("Emulation.setEmulatedMedia", features=scheme)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.devtools("Emulation.setDeviceMetricsOverride", **size)
        time.sleep(0.5)
        Path(file).write_bytes(base64.b64decode(self._ask("GET", "/screenshot")))

    def quit(self):
        self._ask("DELETE", "")


@contextmanager
def browsing(downloads):
    """A browser, and the driver that holds it."""
    command = [DRIVER, "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        said = ""
        while not (port := re.search(r"started successfully on port (\d+)", said)):
            said = driver.stdout.readline()
            assert said, "chromedriver did not start"
        browser = Browser(int(port[1]), downloads)
        try:
            yield browser
        finally:
            browser.quit()
            driver.terminate()


@contextmanager
def serving(folder, *arguments):
    """The page as people start it; gives its address."""
    command = [sys.executable, "-m", "fewshot_ad", "app", "--port", "0", *map(str, arguments)]
    with (folder / "log.txt").open("wb") as log:
        scratch = folder / "scratch"
        scratch.mkdir()
        places = {**os.environ, "TMPDIR": str(scratch)}
        pipe = subprocess.PIPE
        server = subprocess.Popen(command, stdout=pipe, stderr=log, text=True, env=places)
        try:
            line = server.stdout.readline()
            yield re.search(r"http://[\d.]+:\d+", line)[0] + "/"
        finally:
            server.terminate()
            assert server.wait(20) == 0
            server.stdout.close()
    assert not list(scratch.glob("fewshot-ad-*"))  # what was sent, and parts that were saved


def stored(folder, samples, label):
    """Plates as files, large enough to look at."""
    folder.mkdir(exist_ok=True)
    for n, sample in enumerate(samples):
        pixels = np.kron(PLATES.read_image(sample), np.ones((8, 8, 1), np.uint8))
        Image.fromarray(pixels).save(folder / f"{label}-{n}.png")
    return sorted(folder.glob(f"{label}-*.png"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def files(place):
    """Six normals, and four that are OK before four that are not."""
    normals = stored(place / "photos", PLATES.train("plate")[:6], "normal")
    return normals, stored(place / "photos", PLATES.test("plate"), "new")


@pytest.fixture(scope="module")
def address(place):
    with serving(place, *METHOD) as found:
        yield found


@pytest.fixture(scope="module")
def browser(place, address):
    with browsing(place) as found:
        yield found


@pytest.fixture
def page(browser, address):
    """The page, fresh: a new visit is a new session."""
    browser.open(address)
    browser.until(
        "!!document.querySelector('#learn') && !!document.querySelector('#headline .count')"
    )
    time.sleep(1)
    return browser


def drop(page, css, files):
    page.upload(f"{css} input[type=file]", files)
    page.until(f"document.querySelectorAll('{css} tr.file').length === {len(files)}")


def learned(page, files):
    """After a fit on the normals, with all new photos judged."""
    drop(page, "#normals", files[0])
    page.click("#learn")
    page.until(
        "!document.querySelector('#headline .blank') && !document.querySelector('#save').disabled"
    )
    drop(page, "#new", files[1])
    page.until("document.querySelectorAll('#findings tbody tr').length === 8")


def decisions(page):
    rows = page.run(
        "return [...document.querySelectorAll('#findings tbody tr')]"
        ".map(row => [...row.cells].map(cell => cell.innerText))"
    )
    return {row[0]: row[1:] for row in rows}


def slide(page, percentage):
    """Move the slider as a hand does: a value, and the event of it."""
    page.run(
        "const one = document.querySelector('#far input[type=range]');"
        "Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set"
        ".call(one, arguments[0]); one.dispatchEvent(new Event('input', {bubbles: true}));",
        percentage,
    )


def expected(files, far):
    inspector = Inspector.from_normals(files[0], far=far, **SAME)
    return inspector, {Path(one.name).name: one for one in inspector.predict(files[1])}


def test_photos_in_decisions_out_then_another_rate_and_the_file(page, files, place):
    learned(page, files)
    inspector, verdicts = expected(files, 0.01)
    assert decisions(page) == {
        name: [
            one.decision,
            f"{one.score:.4g}",
            f"{100 * one.p_value:.3g} %",
            str(len(one.regions)),
        ]
        for name, one in verdicts.items()
    }
    assert inspector.promise in page.text("#headline")
    slide(page, 45)
    inspector, verdicts = expected(files, 0.45)
    page.until("document.querySelector('#findings').innerText.includes('you want, 45 %')")
    assert inspector.promise in page.text("#headline")
    found = decisions(page)
    assert {name: row[0] for name, row in found.items()} == {
        name: one.decision for name, one in verdicts.items()
    }
    page.click("#save")
    saved = place / "part.fsad"
    page.until(wait_for=saved.exists)
    again = Inspector.load(saved)
    assert again.rule.far == 0.45
    assert again.normals == tuple(file.name for file in files[0])
    assert [one.score for one in again.predict(files[1])] == [
        one.score for one in inspector.predict(files[1])
    ]
    page.open(page.run("return location.href"))  # a new visit begins with nothing, and opens it
    page.until("!!document.querySelector('#headline .blank')")
    page.upload("input[type=file][accept='.fsad']", [saved])
    page.until("!document.querySelector('#headline .blank')")
    assert float(page.run("return document.querySelector('#far input[type=number]').value")) == 45
    drop(page, "#new", files[1])
    page.until("document.querySelectorAll('#findings tbody tr').length === 8")
    assert decisions(page) == found


def test_names_are_words_and_a_photo_can_be_enlarged(page, files):
    page.type("#name input", NAME)
    learned(page, files)
    assert page.text("#headline .kicker") == "part" + NAME
    small = page.run("return document.querySelector('#findings .tile img').clientWidth")
    page.click("#findings .tile summary")
    page.until(f"document.querySelector('#findings .tile img').clientWidth > {2 * small}")
    images = "[...document.querySelectorAll('#findings img')]"
    assert page.run(f"return {images}.length") == 8 + 6
    assert page.run(f"return {images}.every(one => one.complete && one.naturalWidth > 0)")


def test_an_error_is_one_line(page, place):
    page.click("#learn")
    page.until("document.body.innerText.includes('no normal photo was given')")
    assert "Traceback" not in page.text("body")
    assert "Traceback" not in (place / "log.txt").read_text()


@pytest.mark.parametrize("width", [390, 820, 1400])
def test_nothing_sticks_out_and_dark_is_dark(page, files, width, tmp_path):
    learned(page, files)
    papers = []
    for dark in (False, True):
        page.look(tmp_path / "page.png", width, 900, dark=dark)
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.run(f"return {wide}") == 0
        with Image.open(tmp_path / "page.png") as shot:
            papers.append(np.asarray(shot.convert("L"))[300:].mean())
    assert papers[0] > 200
    assert papers[1] < 90


def test_it_asks_nobody_else_and_says_nothing(page, files, address):
    learned(page, files)
    messages = [json.loads(entry["message"])["message"] for entry in page.log("performance")]
    asked = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert len(asked) > 20
    own = (address, "data:", f"blob:{address}")
    assert [url for url in asked if not url.startswith(own)] == []
    assert [entry for entry in page.log("browser") if entry["level"] == "SEVERE"] == []


def test_asking_somebody_else_is_forbidden_and_would_be_seen(page):
    page.log("browser")
    page.run("fetch('http://127.0.0.1:9/').catch(() => 0)")
    page.until(wait_for=lambda: any("127.0.0.1:9" in e["message"] for e in page.log("browser")))
