import json
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from painted import SMALL, MeanColour, Painted
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from fewshot_ad.api import Episode, FewShotError, Prediction
from fewshot_ad.episodes import digest_samples, draw
from fewshot_ad.evaluation import evaluator, queries
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.evaluation.identity import cell_of
from fewshot_ad.evaluation.known import known_images
from fewshot_ad.evaluation.results import row_key
from fewshot_ad.images import prepare


def episode(dataset, shots=2, seed=0, target="plate"):
    support = draw(dataset, target, seed, shots)
    return Episode(dataset.name, target, seed, support, dataset.test(target))


def only(outcomes):
    (outcome,) = outcomes
    return outcome


def test_the_row_equals_one_computed_by_hand():
    dataset = Painted()
    trial = episode(dataset)
    row = only(evaluate(MeanColour(), dataset, [trial], eval_size=16, extra={"study": "s"})).row

    mean = torch.stack([prepare(dataset.read_image(s), SMALL) for s in trial.support]).mean(dim=0)
    images = torch.stack([prepare(dataset.read_image(s), SMALL) for s in trial.query])
    maps = (images - mean).abs().mean(dim=1).numpy()
    masks = [
        np.array(Image.fromarray(dataset.read_mask(s)).resize((16, 16), Image.Resampling.NEAREST))
        for s in trial.query
    ]
    labels = np.array([s.is_anomalous for s in trial.query])
    scores = maps.reshape(len(maps), -1).max(axis=1)
    assert row.i_auroc == pytest.approx(roc_auc_score(labels, scores))
    assert row.i_ap == pytest.approx(average_precision_score(labels, scores))
    assert row.p_auroc == pytest.approx(roc_auc_score(np.ravel(masks), maps.ravel()))
    assert row.p_ap == pytest.approx(average_precision_score(np.ravel(masks), maps.ravel()))
    assert (row.shots, row.n_normal, row.n_anomalous, row.n_missing_masks) == (2, 4, 4, 0)
    assert row.query_digest == digest_samples(dataset, trial.query)
    assert row.support_digest == digest_samples(dataset, trial.support)
    assert row.params["preprocess"]["size"] == 16
    assert row.method == "painted:MeanColour"
    assert row.extra == {"study": "s"}
    assert (row.known, row.known_digest, row.full_shot) == ((), None, False)
    assert min(row.fit_seconds, row.predict_seconds_per_image, row.metric_seconds) > 0
    assert row.peak_memory_mb > 10
    json.dumps(asdict(row), allow_nan=False)


def test_one_image_at_a_time_equals_a_batch():
    dataset = Painted()
    alone, together = (
        only(evaluate(MeanColour(), dataset, [episode(dataset)], batch_size=size))
        for size in (1, 64)
    )
    assert torch.equal(alone.prediction.image_score, together.prediction.image_score)
    assert torch.equal(alone.prediction.anomaly_map, together.prediction.anomaly_map)
    assert alone.row.metrics() == together.row.metrics()


def test_query_images_are_read_once_for_all_episodes_of_a_class():
    dataset = Painted()
    trials = [episode(dataset, shots, seed) for seed in (0, 1) for shots in (1, 2)]
    assert len(list(evaluate(MeanColour(), dataset, trials))) == 4
    query = {sample.path for sample in dataset.test("plate")}
    assert sorted(path for path in dataset.reads if path in query) == sorted(query)


def test_a_class_too_large_to_keep_is_read_again_with_the_same_outcome(monkeypatch):
    dataset = Painted()
    trials = [episode(dataset, 1), episode(dataset, 2)]
    kept = [outcome.row.metrics() for outcome in evaluate(MeanColour(), dataset, trials)]
    monkeypatch.setattr(queries, "KEPT_BYTES", 0)
    dataset.reads.clear()
    again = [outcome.row.metrics() for outcome in evaluate(MeanColour(), dataset, trials)]
    assert again == kept
    assert dataset.reads.count("plate/ok/0") == 2


def test_too_many_pixels_to_sort_are_counted_in_a_histogram(monkeypatch):
    dataset = Painted()
    exact = only(evaluate(MeanColour(), dataset, [episode(dataset)])).row
    monkeypatch.setattr(evaluator, "EXACT_PIXELS", 10)
    with pytest.warns(UserWarning, match=r"painted/plate: 1 million pixels .* off by .* at most"):
        counted = only(evaluate(MeanColour(), dataset, [episode(dataset)])).row
    assert counted.i_auroc == exact.i_auroc
    for name in ("p_auroc", "p_ap", "p_f1_max", "aupro"):
        assert getattr(counted, name) == pytest.approx(getattr(exact, name), abs=1e-3)


def test_native_size_compares_at_the_size_of_the_mask():
    dataset = Painted()
    native, square = (
        only(evaluate(MeanColour(), dataset, [episode(dataset)], eval_size=size)).row
        for size in ("native", 8)
    )
    assert native.eval_size == "native"
    assert native.p_auroc != square.p_auroc
    assert native.i_auroc == square.i_auroc


def test_finished_cells_are_skipped():
    dataset = Painted()
    trials = [episode(dataset, shots) for shots in (1, 2)]
    first = row_key(cell_of(MeanColour(), dataset, trials[0]))
    outcome = only(evaluate(MeanColour(), dataset, trials, skip={first}))
    assert outcome.row.shots == 2
    assert row_key(outcome.row) == row_key(cell_of(MeanColour(), dataset, trials[1]))
    assert list(evaluate(MeanColour(), dataset, trials, skip={first, row_key(outcome.row)})) == []


def test_every_judged_image_is_reported_in_order():
    dataset = Painted()
    seen = []
    outcome = only(
        evaluate(
            MeanColour(),
            dataset,
            [episode(dataset)],
            batch_size=3,
            on_image=lambda sample, score, one: seen.append((sample, float(score), one.shape)),
        )
    )
    scores = outcome.prediction.image_score.tolist()
    assert seen == [
        (s, score, (16, 16)) for s, score in zip(dataset.test("plate"), scores, strict=True)
    ]


def test_a_batched_method_sees_all_query_images_at_once():
    @dataclass(kw_only=True, eq=False)
    class Batched(MeanColour):
        track: ClassVar = "batched"
        sizes: ClassVar[list[int]] = []

        def predict(self, images):
            self.sizes.append(len(images))
            return super().predict(images)

    dataset = Painted()
    only(evaluate(Batched(), dataset, [episode(dataset)], batch_size=2))
    assert Batched.sizes == [8]


def test_zero_shot_and_anomalous_support_reach_fit():
    @dataclass(kw_only=True, eq=False)
    class Zero(MeanColour):
        min_shots: ClassVar = 0

        def fit(self, support):
            self.support_ = support
            self.mean_ = torch.zeros(3, 1, 1)
            return self

    dataset = Painted()
    *query, shown = dataset.test("plate")
    trial = replace(episode(dataset, 0), query=tuple(query), anomalous_support=(shown,))
    method = Zero()
    row = only(evaluate(method, dataset, [trial])).row
    assert (row.shots, row.anomalous_shots) == (0, 1)
    assert method.support_.images.shape == (0, 3, 16, 16)
    assert method.support_.anomalous.masks.any()
    assert method.support_.anomalous.is_anomalous.all()


def test_too_few_shots_are_refused_by_name():
    @dataclass(kw_only=True, eq=False)
    class Greedy(MeanColour):
        min_shots: ClassVar = 3

    dataset = Painted()
    with pytest.raises(FewShotError, match=r"Greedy needs at least 3 .* has 2; .*--shots 3"):
        list(evaluate(Greedy(), dataset, [episode(dataset)]))


def test_not_finite_scores_name_method_image_and_count():
    @dataclass(kw_only=True, eq=False)
    class Broken(MeanColour):
        def predict(self, images):
            found = super().predict(images)
            found.anomaly_map[-1, 3, 3] = torch.nan
            return found

    dataset = Painted()
    with pytest.raises(FewShotError, match=r"Broken gave NaN .* 2 of 8 images.* plate/ok/3"):
        list(evaluate(Broken(), dataset, [episode(dataset)], batch_size=4))


def test_wrong_shapes_are_refused():
    @dataclass(kw_only=True, eq=False)
    class Small(MeanColour):
        def predict(self, images):
            found = super().predict(images)
            return Prediction(found.image_score, found.anomaly_map[:, ::2, ::2])

    dataset = Painted()
    with pytest.raises(FewShotError, match=r"maps of shape \(8, 8, 8\); expected .*\(8, 16, 16\)"):
        list(evaluate(Small(), dataset, [episode(dataset)]))


def test_an_unreadable_query_image_is_named():
    dataset = Painted()
    dataset.unreadable.add("plate/bad/1")
    with pytest.raises(FewShotError, match=r"plate/bad/1 \(image file is truncated\)"):
        list(evaluate(MeanColour(), dataset, [episode(dataset)]))


def test_no_anomalous_test_image_leaves_metrics_empty_with_a_warning():
    dataset = Painted(n_anomalous=0)
    with pytest.warns(UserWarning, match="painted/plate: .* left empty: no anomalous"):
        row = only(evaluate(MeanColour(), dataset, [episode(dataset)])).row
    assert set(row.metrics().values()) == {None}
    assert set(row.reasons) == set(row.metrics())


def test_missing_masks_leave_only_the_pixel_metrics_empty():
    dataset = Painted()
    dataset.without_mask |= {"plate/bad/0", "plate/bad/3"}
    with pytest.warns(UserWarning, match="p_auroc.*a mask is missing for 2 images"):
        row = only(evaluate(MeanColour(), dataset, [episode(dataset)])).row
    assert row.n_missing_masks == 2
    assert row.i_auroc is not None
    assert row.p_auroc is row.p_ap is row.p_f1_max is row.aupro is None


def test_an_episode_of_another_dataset_is_refused():
    dataset = Painted()
    with pytest.raises(FewShotError, match="of dataset 'other', the images of 'painted'"):
        list(evaluate(MeanColour(), dataset, [replace(episode(dataset), dataset="other")]))


def test_the_leak_guard_runs_and_the_row_names_the_known_classes():
    dataset = Painted()
    trial = episode(dataset)
    known = known_images([(dataset, dataset.classes)], exclude=("painted", "plate"))
    row = only(evaluate(MeanColour(), dataset, [trial], known=known)).row
    assert row.known == ("painted/disc", "painted/rod")
    assert row.known_digest == known.digest
    leaky = known_images([(dataset, dataset.classes)])
    with pytest.raises(FewShotError, match="painted/plate is among"):
        list(evaluate(MeanColour(), dataset, [trial], known=leaky))


def test_what_a_checkpoint_remembers_is_guarded_without_being_asked_to():
    dataset = Painted()
    method = MeanColour()
    method.known_ = known_images([(dataset, ("disc",))])
    assert only(evaluate(method, dataset, [episode(dataset)])).row.known == ("painted/disc",)
    method.known_ = known_images([(dataset, ("plate",))])
    with pytest.raises(FewShotError, match="painted/plate is among"):
        list(evaluate(method, dataset, [episode(dataset)]))
