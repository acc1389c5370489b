from pathlib import Path

import numpy as np
import pytest
import torch
from by_hand import focal_and_dice
from listening import catch_trainings
from plates import PLAIN, SIZE, SQUARE, as_images, plate_support, plates, with_square

from fewshot_ad.api import FewShotError
from fewshot_ad.image_files import write_image
from fewshot_ad.methods import draem
from fewshot_ad.methods.draem import DRAEM
from fewshot_ad.parts import image_methods
from fewshot_ad.parts.image_losses import dissimilarity


def small(**changes) -> DRAEM:
    settings = {"preprocess": PLAIN, "device": "cpu", "inner_size": SIZE, "width": 4, "steps": 3}
    return DRAEM(**(settings | changes))


def test_the_score_is_the_highest_mean_over_a_square() -> None:
    method = small(inner_size=64).fit(plate_support(2))
    colours = with_square(plates(1, seed=3))
    assert method.networks_ is not None
    large = method.colours(as_images(colours))
    rebuilt = method.networks_.rebuild(large)
    logits = method.networks_.mark(torch.cat([rebuilt, large], dim=1))[0, 0]
    chances = 1 / (1 + np.exp(-logits.double().numpy()))
    padded = np.pad(chances, 2)
    means = [
        padded[row : row + 5, column : column + 5].mean()
        for row in range(64)
        for column in range(64)
    ]
    found = method.predict(as_images(colours))
    assert float(found.image_score[0]) == pytest.approx(max(means), rel=1e-4)


def test_training_undoes_and_marks_what_was_made_up() -> None:
    painted, normal = with_square(plates(4, seed=3)), plates(4, seed=3)
    errors, contrasts = [], []
    for steps in (1, 80):
        method = small(steps=steps).fit(plate_support(4))
        assert method.networks_ is not None
        rebuilt, logits = method.networks_(painted)
        errors.append(float((rebuilt - normal).square().mean()))
        contrasts.append(float(logits[:, *SQUARE].mean() - logits.mean()))
    assert errors[1] < 0.5 * errors[0]
    assert contrasts[1] > contrasts[0] + 1


def test_textures_of_a_folder_are_used_and_bad_ones_refused(tmp_path: Path) -> None:
    with pytest.raises(FewShotError, match="has no file"):
        small(texture_dir=str(tmp_path)).fit(plate_support(1))
    write_image(tmp_path / "red.png", np.full((40, 40, 3), (250, 0, 0), dtype=np.uint8))
    settings = {"clean": 0.0, "steps": 5}
    images = as_images(plates(2))
    of_folder, drawn = (
        small(texture_dir=folder, **settings).fit(plate_support(2)).predict(images).image_score
        for folder in (str(tmp_path), None)
    )
    assert not torch.equal(of_folder, drawn)
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(FewShotError, match=r"notes.txt cannot be read as an image"):
        small(texture_dir=str(tmp_path)).fit(plate_support(1))


def test_the_loss_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    made, paint = [], draem.paint_textures

    def noted(*given, **settings):
        made.append(paint(*given, **settings))
        return made[-1]

    monkeypatch.setattr(draem, "paint_textures", noted)
    caught = catch_trainings(monkeypatch, image_methods)
    settings = {"ssim_weight": 0.5, "dice_weight": 0.25, "focal_gamma": 3.0, "clean": 0.0}
    small(shift=0.0, turn=0.0, batch_size=2, **settings).fit(plate_support(2))
    network, loss, _ = caught[0]
    found = float(loss(torch.arange(2), torch.Generator().manual_seed(3)))
    painted, masks = made[0]
    rebuilt, logits = network(painted)
    chances, wanted = logits.sigmoid().double().detach().numpy(), masks.numpy()
    assert 0 < wanted.mean() < 1
    focal, dice = focal_and_dice(chances, wanted, 3.0)
    squared = (rebuilt - plates(2)).square().mean()
    rebuilding = float(squared + 0.5 * dissimilarity(rebuilt, plates(2)).mean())
    assert found == pytest.approx(rebuilding + focal + 0.25 * dice, rel=1e-4)
