from dataclasses import replace

import numpy as np
import pytest
from painted import Painted
from sklearn.linear_model import LogisticRegression

from fewshot_ad.api import FewShotError, Preprocess
from fewshot_ad.evaluation.reading import read_labelled
from fewshot_ad.parts.feature_cache import load_features
from fewshot_ad.studies.kind_probe import probe_kinds

SMALL = Preprocess(size=32)


class Stripes(Painted):
    """Anomalies are bright stripes: half of them lie, half of them stand, and one has no kind."""

    def test(self, class_name):
        samples = super().test(class_name)
        anomalous = [sample for sample in samples if sample.is_anomalous]
        kinds = [("lying", "standing")[number % 2] for number in range(len(anomalous) - 1)]
        named = [replace(s, defect=k) for s, k in zip(anomalous, [*kinds, None], strict=True)]
        return (*(s for s in samples if not s.is_anomalous), *named)

    def read_image(self, sample):
        image = super().read_image(replace(sample, is_anomalous=False))
        image[self._stripe(sample)] = 255
        return image

    def read_mask(self, sample):
        mask = np.zeros((24, 32), dtype=bool)
        mask[self._stripe(sample)] = True
        return None if sample.path in self.without_mask else mask

    @staticmethod
    def _stripe(sample):
        if sample.defect is None:
            return slice(0, 0), slice(0, 0)
        if sample.defect == "lying":
            return slice(8, 12), slice(0, 32)
        return slice(0, 24), slice(9, 13)


@pytest.fixture
def dataset() -> Stripes:
    return Stripes(n_anomalous=13)


@pytest.fixture
def features():
    return load_features("tiny", (1, 2), device="cpu")


@pytest.mark.parametrize("pool", ["image", "mask"])
def test_plain_kinds_are_told_apart(pool, dataset, features) -> None:
    found = probe_kinds(dataset, "plate", features, SMALL, per_kind=3, seeds=3, pool=pool)
    assert found.kinds == ("lying", "standing")
    assert found.chance == 0.5
    assert np.mean(found.balanced_accuracy) > 0.9
    assert found.confusion.sum() == 3 * (12 - 2 * 3)  # what was taught is not told
    assert found.confusion.sum(axis=1).tolist() == [9, 9]


def test_kinds_that_mean_nothing_are_guessed(dataset, features, monkeypatch) -> None:
    monkeypatch.setattr(Stripes, "_stripe", staticmethod(lambda _: (slice(8, 12), slice(0, 32))))
    found = probe_kinds(dataset, "plate", features, SMALL, per_kind=3, seeds=8)
    assert 0.25 < np.mean(found.balanced_accuracy) < 0.75


def test_the_same_draw_gives_the_same_answer(dataset, features) -> None:
    runs = [probe_kinds(dataset, "plate", features, SMALL, seeds=2) for _ in range(2)]
    assert runs[0].accuracy == runs[1].accuracy
    assert (runs[0].confusion == runs[1].confusion).all()


def test_it_is_what_the_loops_say(dataset, features) -> None:
    """Pooling, scaling and regression written out, for the draw of seed 0."""
    samples = sorted((s for s in dataset.test("plate") if s.defect), key=lambda s: str(s.defect))
    vectors = []
    for sample in samples:
        image = read_labelled(dataset, [sample], SMALL).images
        (level,) = load_features("tiny", (1,), device="cpu")(image)
        values = level[0].double().flatten(1).numpy()
        vectors.append(np.concatenate([values.mean(axis=1), values.max(axis=1)]))
    rows, truth = np.stack(vectors), np.array([s.defect == "standing" for s in samples])
    generator = np.random.Generator(np.random.PCG64(0))
    taught = np.concatenate([generator.permutation(np.flatnonzero(truth == k))[:2] for k in (0, 1)])
    mean, scale = rows[taught].mean(axis=0), rows[taught].std(axis=0)
    scaled = (rows - mean) / np.where(scale == 0, 1, scale)
    model = LogisticRegression(max_iter=2000).fit(scaled[taught], truth[taught])
    others = np.setdiff1d(np.arange(len(rows)), taught)
    expected = (model.predict(scaled[others]) == truth[others]).mean()
    one_level = load_features("tiny", (1,), device="cpu")
    found = probe_kinds(dataset, "plate", one_level, SMALL, per_kind=2, seeds=1)
    assert found.accuracy == (pytest.approx(expected),)


def test_too_few_of_a_kind_are_counted(dataset, features) -> None:
    with pytest.raises(FewShotError, match=r"lying 6, standing 6; .*more than 6: give a smaller"):
        probe_kinds(dataset, "plate", features, SMALL, per_kind=6)


def test_without_masks_only_the_image_can_be_pooled(dataset, features) -> None:
    dataset.without_mask = {"plate/bad/0"}
    with pytest.raises(FewShotError, match="take --pool image"):
        probe_kinds(_kept(dataset), "plate", features, SMALL, per_kind=2, pool="mask")


def _kept(dataset: Stripes) -> Stripes:
    """Samples keep their kinds although a mask cannot be read."""
    missing, dataset.without_mask = dataset.without_mask, set()
    listed = dataset.test("plate")
    dataset.without_mask = missing
    dataset.test = lambda _: listed
    return dataset
