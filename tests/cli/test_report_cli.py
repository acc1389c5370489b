"""The commands ``report`` and ``compare``."""

import csv
import io
import json
from dataclasses import replace

import pytest
from painted import SMALL, MeanColour, Painted
from stored_rows import ROW, some_rows

from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.evaluation.evidence import evidence_of
from fewshot_ad.evaluation.results import append, row_key
from fewshot_ad.studies.store import Failure, Store


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    path = tmp_path_factory.mktemp("lines") / "results.jsonl"
    for row in some_rows(methods=2, classes=6, shots=(4,), seeds=1):
        append(path, row)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "results.sqlite"
    dataset = Painted()
    trials = episodes(dataset, "plate", shots=[4], seeds=[0])
    with Store(path) as kept:
        for outcome in evaluate(MeanColour(), dataset, trials):
            evidence = evidence_of(outcome, dataset, SMALL).to_bytes()
            key = row_key(outcome.row)
            kept.save(outcome.row, cell=key, code="c", seconds=1.0, evidence=evidence)
        kept.fail(Failure(cell="x", method="padim", dataset="painted", target_class="disc",
                          known=None, shots=2, seed=0, reason="out of memory"))  # fmt: skip
        kept.note_study("title: a study\n")
    return path


def test_a_page_of_a_store_has_its_pictures_failures_and_study(cli, store, tmp_path):
    out = tmp_path / "page.html"
    done = cli("report", store, "--out", out, "--title", "One & only")
    assert done.exit_code == 0
    html = out.read_text()
    assert "<h1>One &amp; only</h1>" in html
    assert html.count("data:image/jpeg") > 3
    assert "padim on painted/disc, 2 shots, seed 0" in html
    assert "out of memory" in html
    assert "title: a study" in html
    assert "Images, ROC" in html
    assert [*tmp_path.iterdir()] == [out]


def test_published_numbers_of_a_study_stand_beside_ours(cli, store, tmp_path):
    path, out = tmp_path / "results.sqlite", tmp_path / "page.html"
    path.write_bytes(store.read_bytes())
    with Store(path) as kept:
        kept.note_study(
            "{title: t, methods: [padim], targets: [{dataset: painted}], shots: [4], published: "
            "[{method: padim, dataset: painted, shots: 4, i_auroc: 87.6, source: their table}]}"
        )
    done = cli("report", path, "--out", out)
    assert done.exit_code == 0
    assert "published numbers are left out" in done.stderr  # of the study that is none
    html = out.read_text()
    assert "87.6" in html
    assert "their table" in html


def test_a_folder_and_several_stores_are_joined(cli, lines, store, tmp_path):
    out = tmp_path / "page.html"
    assert cli("report", lines.parent, store, "--out", out).exit_code == 0
    html = out.read_text()
    assert "13 rows" in html
    assert "data:image/jpeg" in html


@pytest.mark.parametrize(
    ("form", "words"), [("md", "| --- |"), ("latex", r"\toprule"), ("csv", "i_auroc_mean")]
)
def test_other_formats_come_on_the_screen_or_in_a_file(cli, lines, tmp_path, form, words):
    shown = cli("report", lines, "--format", form)
    assert words in shown.stdout
    suffix = {"latex": "tex"}.get(form, form)
    out = tmp_path / f"table.{suffix}"
    assert cli("report", lines, "--out", out).exit_code == 0
    assert out.read_text() == shown.stdout


def test_csv_has_every_line(cli, lines):
    read = list(csv.DictReader(io.StringIO(cli("report", lines, "--format", "csv").stdout)))
    assert len(read) == 2 * (6 + 1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere.jsonl"], "cannot read results"),
        (["{lines}", "--metric", "accuracy", "--out", "{tmp}/x.html"], "no metric 'accuracy'"),
        (["{lines}", "--out", "{empty}/x.html"], "cannot write"),
        (["{empty}"], "no row to report on"),
    ],
)
def test_what_a_user_can_mend_is_one_line(cli, lines, tmp_path, arguments, words):
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    filled = [a.format(lines=lines, tmp=tmp_path, empty=empty) for a in arguments]
    done = cli("report", *filled)
    assert done.exit_code == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert [*tmp_path.iterdir()] == [empty]


@pytest.fixture
def moved(lines, tmp_path):
    path = tmp_path / "results.jsonl"
    for row in some_rows(methods=2, classes=6, shots=(4,), seeds=1):
        shift = 0.02 if row.method == "m1" else 0.0
        append(path, replace(row, i_auroc=row.i_auroc + shift, git_commit="abc"))
    append(path, replace(ROW, method="new"))
    return path


def test_compare_tells_what_moved_and_whether_it_matters(cli, lines, moved):
    done = cli("compare", lines, moved)
    assert done.exit_code == 0
    assert "12 cells in both: 6 have equal metrics, 6 differ" in done.stdout
    assert "1 cells only in" in done.stdout
    assert "git commit: None -> abc" in done.stdout
    assert "+2.00" in done.stdout
    assert "significantly higher" in done.stdout
    assert "equal in all 6 classes" in done.stdout


def test_compare_as_json(cli, lines, moved):
    found = json.loads(cli("compare", lines, moved, "--json").stdout)
    assert found["pairs"] == 12
    assert len(found["moved"]) == 6
    tested = found["by_method"]["m1"]["i_auroc"]
    assert tested["p"] == pytest.approx(2 / 2**6)
    assert tested["difference"]["mean"] == pytest.approx(0.02)


def test_a_run_compared_with_itself(cli, lines):
    done = cli("compare", lines, lines)
    assert done.exit_code == 0
    assert done.stdout == "12 cells in both: 12 have equal metrics, 0 differ\n"
