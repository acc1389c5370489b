from itertools import combinations

import numpy as np
import pytest
from painted import SMALL, Painted
from sklearn.metrics import roc_auc_score
from strangers import NearestEdges

from fewshot_ad.api import FewShotError, Support
from fewshot_ad.episodes import draw
from fewshot_ad.evaluation.reading import read_images
from fewshot_ad.methods import load_method
from fewshot_ad.studies.support_influence import Trials, compare_choices, effects, k_centre


def trials_of(method=None, **counts) -> Trials:
    dataset = Painted(**counts)
    method = method or NearestEdges(cell=4, preprocess=SMALL)
    return Trials(method, dataset, "plate", dataset.test("plate"))


def scores_by_hand(trials: Trials, support) -> np.ndarray:
    """A fresh method, all query images at once."""
    method = NearestEdges(cell=4, preprocess=SMALL)
    method.fit(Support("plate", read_images(trials.dataset, support, SMALL)))
    return method.predict(
        read_images(trials.dataset, trials.query.samples, SMALL)
    ).image_score.numpy()


def test_effects_are_those_of_other_supports() -> None:
    trials = trials_of()
    support = draw(trials.dataset, "plate", 0, 3)
    found = effects(trials, support)
    truth = [sample.is_anomalous for sample in found.query]
    whole = scores_by_hand(trials, support)
    assert np.allclose(found.scores, whole)
    assert found.i_auroc == pytest.approx(roc_auc_score(truth, whole))
    assert not {sample.path for sample in found.spares} & {sample.path for sample in support}
    assert len(set(found.spares)) == 3
    for n in range(3):
        others = [sample for m, sample in enumerate(support) if m != n]
        without = scores_by_hand(trials, others)
        swapped = scores_by_hand(trials, [*others, found.spares[n]])
        assert np.allclose(found.left_out[n], without - whole, atol=1e-6)
        assert np.allclose(found.swapped[n], swapped - whole, atol=1e-6)
        change = roc_auc_score(truth, without) - roc_auc_score(truth, whole)
        assert found.left_out_i_auroc[n] == pytest.approx(change)
    assert (found.left_out >= -1e-6).all()  # a nearest neighbour can only be further away


def test_choices_are_drawn_as_everywhere_and_chosen_without_labels() -> None:
    plain = compare_choices(trials_of(), shots=2, draws=4)
    assert plain.drawn[3] == draw(Painted(), "plate", 3, 2)
    assert (plain.chosen, plain.chosen_i_auroc, plain.share_below) == ((), None, None)
    trials = trials_of(load_method("patchcore", backbone="random:tiny", preprocess=SMALL))
    found = compare_choices(trials, shots=2, draws=4)
    assert len(set(found.chosen)) == 2
    assert found.chosen_i_auroc == trials.i_auroc(trials.scores(found.chosen))
    assert found.share_below is not None
    assert 0 <= found.share_below <= 1


def test_k_centre_is_at_most_twice_as_far_as_the_best_choice() -> None:
    vectors = np.random.default_rng(0).normal(size=(12, 3))
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)

    def radius(places) -> float:
        return distances[:, list(places)].min(axis=1).max()

    for count in (2, 3):
        places = k_centre(vectors, count)
        assert len(set(places)) == count
        assert radius(places) <= 2 * min(map(radius, combinations(range(12), count)))
    nearest = np.linalg.norm(vectors - vectors.mean(axis=0), axis=1).argmin()
    assert k_centre(vectors, 1).tolist() == [nearest]


def test_what_cannot_be_asked_is_refused() -> None:
    trials = trials_of(n_train=3)
    with pytest.raises(FewShotError, match="cannot do without one of 1 support images"):
        effects(trials, draw(trials.dataset, "plate", 0, 1))
    with pytest.raises(FewShotError, match="none is left to swap for"):
        effects(trials, draw(trials.dataset, "plate", 0, 3))
    with pytest.raises(FewShotError, match="no anomalous image"):
        trials_of(n_anomalous=0)
