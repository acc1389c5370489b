from dataclasses import replace

import numpy as np
import pytest
import torch
from by_hand import focal_and_dice
from listening import catch_trainings
from plates import PLAIN, SIZE, SQUARE, as_images, plate_support, plates, with_square
from torch import nn

from fewshot_ad.api import FewShotError, LabelledBatch
from fewshot_ad.methods.unet import UNetSegmenter
from fewshot_ad.parts import image_methods


def small(**changes) -> UNetSegmenter:
    settings = {"preprocess": PLAIN, "device": "cpu", "inner_size": SIZE, "width": 4, "steps": 2}
    return UNetSegmenter(**(settings | changes))


def test_the_score_is_the_mean_of_the_highest_pixels() -> None:
    method, colours = small(top=0.02).fit(plate_support(2, 1)), plates(1, seed=4)
    assert method.network_ is not None
    chances = 1 / (1 + np.exp(-method.network_(colours)[0, 0].double().numpy()))
    found = method.predict(as_images(colours))
    np.testing.assert_allclose(found.anomaly_map[0], chances, rtol=1e-4)
    highest = np.sort(chances.ravel())[-20:]  # 2 % of 1024
    assert float(found.image_score[0]) == pytest.approx(highest.mean(), rel=1e-4)


def test_masks_move_with_their_images() -> None:
    support = plate_support(2, 3)
    method = small(shift=0.2, turn=20.0)
    labelled = method._labelled(support)
    shown = method._given(plates(6), torch.Generator().manual_seed(0), labelled)
    red = shown.images[:, 0] - shown.images[:, 1] > 0.45
    assert shown.masks.any()
    assert (red == shown.masks).float().mean() > 0.99
    assert not torch.equal(shown.masks[0], shown.masks[1])


def test_anomalies_without_a_mask_teach_nothing() -> None:
    support = plate_support(2, 2)
    given = support.anomalous
    assert given is not None
    masks = given.masks.clone()
    masks[0] = False
    partly = replace(support, anomalous=LabelledBatch(given.images, masks, given.is_anomalous))
    assert len(small()._labelled(partly)) == 1
    masks[1] = False
    unmasked = replace(support, anomalous=LabelledBatch(given.images, masks, given.is_anomalous))
    with pytest.raises(FewShotError, match="2 labelled anomalies and none with a mask"):
        small().fit(unmasked)


@pytest.mark.parametrize("labels", ["given", "both"])
def test_no_anomaly_is_refused_where_one_is_learned_from(labels: str) -> None:
    with pytest.raises(FewShotError, match="plate: 0 labelled anomalies and none with a mask"):
        small(labels=labels).fit(plate_support(2))


def test_synthetic_labels_need_none_and_heed_none() -> None:
    method = small(labels="synthetic")
    assert method.track == "target_tuned"
    assert small().track == small(labels="both").track == "supervised"
    images = as_images(plates(2, seed=3))
    alone, beside = (method.variant().fit(plate_support(2, k)).predict(images) for k in (0, 2))
    assert torch.equal(alone.anomaly_map, beside.anomaly_map)


def test_training_tells_the_shown_kind_from_the_rest() -> None:
    images = as_images(with_square(plates(2, seed=4)))
    found = (
        small(steps=40, learning_rate=5e-3, labels="both").fit(plate_support(3, 2)).predict(images)
    )
    inside = found.anomaly_map[:, SQUARE[0], SQUARE[1]].mean()
    assert inside > 2 * found.anomaly_map.mean()


def test_no_batch_is_normalised() -> None:
    method = small().fit(plate_support(1, 1))
    assert method.network_ is not None
    assert not any(isinstance(part, nn.BatchNorm2d) for part in method.network_.modules())


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(FewShotError, match="encoder is 'resnet-18': expected a name of"):
        small(encoder="resnet-18").fit(plate_support(1, 1))


def test_the_loss_is_focal_and_dice_over_normal_and_given(monkeypatch: pytest.MonkeyPatch) -> None:
    caught = catch_trainings(monkeypatch, image_methods)
    small(shift=0.0, turn=0.0, batch_size=2, dice_weight=0.5).fit(plate_support(2, 1))
    network, loss, _ = caught[0]
    found = float(loss(torch.arange(2), torch.Generator().manual_seed(3)))
    given = with_square(plates(1, 50)).expand(2, -1, -1, -1)
    chances = network(torch.cat([plates(2), given]))[:, 0].sigmoid().double().detach().numpy()
    wanted = np.zeros((4, SIZE, SIZE), dtype=bool)
    wanted[2:, SQUARE[0], SQUARE[1]] = True
    focal, dice = focal_and_dice(chances, wanted, 2.0)
    assert found == pytest.approx(focal + 0.5 * dice, rel=1e-4)
