"""The page in a real browser: it sorts, shows its pictures, asks for nothing and is silent."""

import functools
import http.server
import json
import re
import shutil
import subprocess
import threading
from dataclasses import dataclass, field
from html import unescape
from typing import ClassVar

import pytest
from painted import SMALL, MeanColour, Painted
from stored_rows import some_rows

from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.evaluation.evidence import evidence_of
from fewshot_ad.evaluation.results import row_key
from fewshot_ad.report.page import Material, html_page

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]

PROBE = """
<script>
addEventListener("load", () => {
  const table = document.querySelector("#track-1 table.sortable");
  const column = (n) => [...table.tBodies[0].rows].map((row) => row.cells[n].textContent);
  const heads = [...table.tHead.rows[0].cells];
  const at = heads.findIndex((head) => head.textContent === "I-AUROC");
  const found = {before: column(at)};
  heads[at].querySelector("button").click();
  found.down = column(at);
  found.aria = heads[at].getAttribute("aria-sort");
  heads[at].querySelector("button").click();
  found.up = column(at);
  heads[0].querySelector("button").click();
  found.names = column(0);
  const images = [...document.images];
  found.images = images.length;
  found.shown = images.filter((one) => one.complete && one.naturalWidth > 0).length;
  found.named = images.filter((one) => one.alt.length > 5).length;
  found.svgs = document.querySelectorAll("figure svg path.line").length;
  const paper = () => getComputedStyle(document.body).backgroundColor;
  found.paper = [paper()];
  document.getElementById("theme").click();
  found.paper.push(paper());
  found.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  location.hash = document.querySelector("#track-1 tbody a").getAttribute("href");
  setTimeout(() => {
    found.opened = document.querySelector(":target").closest("details").open;
    found.asked = performance.getEntriesByType("resource").map((one) => one.name)
      .filter((name) => !name.startsWith("data:"));
    const note = document.createElement("pre");
    note.id = "probe";
    note.textContent = JSON.stringify(found);
    document.body.append(note);
  }, 300);
});
</script>
"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the page, and remembers what was asked for."""

    asked: ClassVar[list[str]] = []

    def log_request(self, code="-", size="-"):
        self.asked.append(self.path)


@dataclass
class Visit:
    """What a browser found."""

    probe: dict
    console: list[str]
    asked: list[str] = field(default_factory=list)


def stored() -> Material:
    """Two methods with evidence, and a grid without."""
    dataset, kept, rows = Painted(), {}, some_rows()
    for target_class in ("plate", "disc"):
        trials = list(episodes(dataset, target_class, shots=[1, 4], seeds=[0, 1]))
        for gain in (1.0, -1.0):
            for outcome in evaluate(MeanColour(gain=gain), dataset, trials):
                rows.append(outcome.row)
                kept[row_key(outcome.row)] = evidence_of(outcome, dataset, SMALL).to_bytes()
    return Material(rows=rows, title="A page", evidence=kept.get)


def visit(html: str, folder, width: int) -> Visit:
    (folder / "page.html").write_text(html.replace("</body>", PROBE + "</body>"))
    Handler.asked = []
    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ran = subprocess.run(
            [
                str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", "--enable-logging=stderr", f"--user-data-dir={folder}/profile",
                f"--window-size={width},900", "--virtual-time-budget=5000", "--dump-dom",
                f"http://127.0.0.1:{server.server_address[1]}/page.html",
            ],
            capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
        server.shutdown()
    probe = re.search(r'<pre id="probe">(.*?)</pre>', ran.stdout, re.DOTALL)
    console = [line for line in ran.stderr.splitlines() if "CONSOLE" in line]
    assert probe, f"the page did not load: {console}"
    return Visit(json.loads(unescape(probe[1])), console, Handler.asked)


@pytest.fixture(scope="module")
def html() -> str:
    return html_page(stored())


@pytest.fixture(scope="module")
def visited(html, tmp_path_factory) -> Visit:
    return visit(html, tmp_path_factory.mktemp("page"), 1400)


def numbers(cells: list[str]) -> list[float]:
    return [float(cell.split(" ")[0]) for cell in cells]


def test_a_table_sorts_both_ways(visited):
    before, down, up = (visited.probe[name] for name in ("before", "down", "up"))
    assert numbers(down) == sorted(numbers(before), reverse=True)
    assert numbers(up) == sorted(numbers(before))
    assert visited.probe["aria"] == "descending"
    assert visited.probe["names"] == sorted(visited.probe["names"])


def test_pictures_and_lines_are_there(visited):
    assert visited.probe["images"] > 12
    assert visited.probe["images"] == visited.probe["shown"] == visited.probe["named"]
    assert visited.probe["svgs"] > 10


def test_it_asks_for_nothing_and_says_nothing(visited):
    assert visited.asked == ["/page.html"]
    assert visited.probe["asked"] == []
    assert visited.console == []


def test_dark_is_dark_and_links_open_the_rows(visited):
    light, dark = (sum(map(int, re.findall(r"\d+", c)[:3])) for c in visited.probe["paper"])
    assert light > 600
    assert dark < 150
    assert visited.probe["opened"]


def test_nothing_sticks_out_on_a_narrow_screen(html, tmp_path):
    assert visit(html, tmp_path, 500).probe["wide"] == 0  # headless windows are no narrower


def test_an_error_would_be_seen(tmp_path, html):
    broken = html.replace('"use strict";', '"use strict"; console.error("broken");')
    assert any("broken" in line for line in visit(broken, tmp_path, 800).console)
