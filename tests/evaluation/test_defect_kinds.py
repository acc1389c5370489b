from dataclasses import dataclass, replace

import numpy as np
import pytest
from painted import MeanColour, Painted
from sklearn.metrics import roc_auc_score

from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation import evaluator
from fewshot_ad.evaluation.defect_kinds import SEEN, UNNAMED, UNSEEN, groups_of_kinds
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.evaluation.results import append, load
from fewshot_ad.report.extra_lines import kind_lines


class Kinds(Painted):
    """Anomalies are scratches and dents in turn; one has no name."""

    def test(self, class_name):
        names = ["scratch", "dent", "scratch", "dent", None, "scratch"]
        samples = super().test(class_name)
        normal = [sample for sample in samples if not sample.is_anomalous]
        anomalous = [sample for sample in samples if sample.is_anomalous]
        pairs = zip(anomalous, names, strict=True)
        return (*normal, *(replace(sample, defect=name) for sample, name in pairs))


@dataclass(kw_only=True, eq=False)
class Learned(MeanColour):
    track = "supervised"


@pytest.fixture
def dataset() -> Kinds:
    return Kinds(n_normal=5, n_anomalous=6)


def test_every_kind_is_a_group_and_so_are_the_seen_and_the_others(dataset) -> None:
    samples = dataset.test("plate")
    names = [sample.defect for sample in samples]
    plain = groups_of_kinds(samples, set())
    assert {name: group.sum() for name, group in plain.items()} == {
        "scratch": 3, "dent": 2, UNNAMED: 1,
    }  # fmt: skip
    shown = groups_of_kinds(samples, {"dent"})
    assert shown[SEEN].tolist() == [name == "dent" for name in names]
    unseen = [s.is_anomalous and s.defect != "dent" for s in samples]
    assert shown[UNSEEN].tolist() == unseen


def test_kinds_are_judged_against_all_normals(dataset) -> None:
    trials = list(episodes(dataset, "plate", shots=(3,), seeds=(0, 1), anomalous_shots=1))
    for outcome in evaluate(Learned(), dataset, trials, eval_size="native"):
        samples, scores = outcome.episode.query, outcome.prediction.image_score.numpy()
        shown = {sample.defect for sample in outcome.episode.anomalous_support}
        truth = np.array([sample.is_anomalous for sample in samples])
        for name, wanted in ((SEEN, True), (UNSEEN, False)):
            of_group = np.array([s.is_anomalous and (s.defect in shown) == wanted for s in samples])
            rows = of_group | ~truth
            found = outcome.row.kinds[name]
            assert found["n"] == of_group.sum()
            assert found["i_auroc"] == pytest.approx(roc_auc_score(truth[rows], scores[rows]))


def test_pixels_of_a_kind_are_those_of_a_run_without_the_others(dataset) -> None:
    (trial,) = episodes(dataset, "plate", shots=(3,), seeds=(0,), anomalous_shots=1)
    whole = next(iter(evaluate(Learned(), dataset, [trial], eval_size=16)))
    shown = {sample.defect for sample in trial.anomalous_support}
    alone = replace(
        trial, query=tuple(s for s in trial.query if not s.is_anomalous or s.defect in shown)
    )
    part = next(iter(evaluate(Learned(), dataset, [alone], eval_size=16)))
    assert whole.row.kinds[SEEN]["p_auroc"] == pytest.approx(part.row.p_auroc)
    assert whole.row.kinds[SEEN]["aupro"] == pytest.approx(part.row.aupro)
    assert whole.row.kinds[SEEN]["i_auroc"] == pytest.approx(part.row.i_auroc)


def test_without_shown_anomalies_only_images_are_judged_by_kind(dataset) -> None:
    (outcome,) = evaluate(MeanColour(), dataset, episodes(dataset, "plate", shots=(2,), seeds=(0,)))
    assert set(outcome.row.kinds) == {"scratch", "dent", UNNAMED}
    assert all(kind["p_auroc"] is None for kind in outcome.row.kinds.values())
    assert kind_lines([outcome.row]) == []


def test_too_many_pixels_to_sort_leave_those_of_kinds_empty(dataset, monkeypatch) -> None:
    trials = list(episodes(dataset, "plate", shots=(3,), seeds=(0,), anomalous_shots=1))
    (exact,) = evaluate(Learned(), dataset, trials)
    monkeypatch.setattr(evaluator, "EXACT_PIXELS", 10)
    with pytest.warns(UserWarning, match="too many to sort"):
        (counted,) = evaluate(Learned(), dataset, trials)
    assert exact.row.kinds[SEEN]["p_auroc"] is not None
    assert counted.row.kinds[SEEN]["p_auroc"] is None
    assert counted.row.kinds[SEEN]["i_auroc"] == exact.row.kinds[SEEN]["i_auroc"]


def test_rows_keep_kinds_and_lines_tell_them(dataset, tmp_path) -> None:
    trials = list(episodes(dataset, "plate", shots=(3,), seeds=(0, 1), anomalous_shots=1))
    rows = [outcome.row for outcome in evaluate(Learned(), dataset, trials)]
    for row in rows:
        append(tmp_path / "rows.jsonl", row)
    kept = [row.kinds for row in load(tmp_path / "rows.jsonl")]
    assert kept == [row.kinds for row in rows]
    (line,) = kind_lines(rows)
    assert line.startswith("painted/plate, ")
    assert "Learned, 3 shots + 1 anomalous: seen kinds I-AUROC" in line
    seen = 100 * np.mean([row.kinds[SEEN]["i_auroc"] for row in rows])
    assert f"seen kinds I-AUROC {seen:.1f} ± " in line
    assert "; unseen kinds I-AUROC" in line
