import numpy as np
import pytest
import torch
from painted import SMALL
from sklearn.metrics import roc_auc_score
from strangers import NearestEdges, ScaledEdges

from fewshot_ad.api import FewShotError, Support
from fewshot_ad.studies.small_defects import Tiled, metrics_by_size


def test_every_group_is_judged_against_all_normal_images() -> None:
    generator = np.random.default_rng(0)
    is_anomalous = np.array([False, True] * 6)
    masks = [np.zeros((9, 9), bool) for _ in is_anomalous]
    for n, place in enumerate(np.flatnonzero(is_anomalous)):
        masks[place][:1, : n + 1] = True  # areas rise with the place
    order = generator.permutation(12)
    is_anomalous, masks = is_anomalous[order], [masks[place] for place in order]
    scores = generator.normal(size=12).astype(np.float32)
    maps = [generator.normal(size=(9, 9)).astype(np.float32) for _ in masks]
    groups = metrics_by_size(scores, maps, masks, is_anomalous, groups=3)
    assert [group.n_anomalous for group in groups] == [2, 2, 2]
    for n, group in enumerate(groups):
        areas = [(2 * n + 1) / 81, (2 * n + 2) / 81]
        assert [group.smallest, group.largest] == pytest.approx(areas)
        kept = [i for i, mask in enumerate(masks) if not is_anomalous[i] or mask.mean() in areas]
        assert len(kept) == 8
        assert group.metrics.i_auroc == pytest.approx(
            roc_auc_score(is_anomalous[kept], scores[kept])
        )
        truth = np.concatenate([masks[i].ravel() for i in kept])
        values = np.concatenate([maps[i].ravel() for i in kept])
        assert group.metrics.p_auroc == pytest.approx(roc_auc_score(truth, values))


def test_few_anomalies_make_few_groups_and_none_is_an_error() -> None:
    maps = [np.zeros((2, 2), np.float32)] * 2
    masks = [np.zeros((2, 2), bool), np.ones((2, 2), bool)]
    scores = np.array([0.0, 1.0], np.float32)
    (group,) = metrics_by_size(scores, maps, masks, np.array([False, True]))
    assert group.metrics.i_auroc == 1.0
    with pytest.raises(FewShotError, match="no anomalous image"):
        metrics_by_size(scores, maps, masks, np.array([False, False]))


def test_one_tile_is_the_image_and_four_are_its_parts() -> None:
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain = NearestEdges(cell=4, preprocess=SMALL).fit(Support("plate", images[:2]))
    whole = Tiled(inner=NearestEdges(cell=4, preprocess=SMALL), factor=1)
    assert whole.preprocess == SMALL
    expected, found = plain.predict(images), whole.fit(Support("plate", images[:2])).predict(images)
    assert torch.equal(found.image_score, expected.image_score)
    assert torch.equal(found.anomaly_map, expected.anomaly_map)
    large = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    tiled = Tiled(inner=NearestEdges(cell=4, preprocess=SMALL), factor=2)
    assert tiled.preprocess.size == 32
    judged = tiled.fit(Support("plate", large)).predict(large)
    assert judged.anomaly_map.shape == (1, 32, 32)
    assert judged.image_score.item() == pytest.approx(0, abs=0.01)  # every tile was in the support
    stained = large.clone()
    stained[:, :, 20:24, 20:24] += 3
    again = tiled.predict(stained)
    assert again.image_score.item() > 0.5
    peak = again.anomaly_map[0].argmax().item()
    assert 16 <= peak // 32 < 28
    assert 16 <= peak % 32 < 28


def test_what_tiles_do_not_suit_is_refused() -> None:
    with pytest.raises(FewShotError, match="ScaledEdges is meta_trained"):
        Tiled(inner=ScaledEdges())
    with pytest.raises(FewShotError, match="factor of 0"):
        Tiled(inner=NearestEdges(), factor=0)
