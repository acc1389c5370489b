from pathlib import Path

import numpy as np
import pytest
import torch
from plates import PLAIN, SIZE, SQUARE, as_images, plate_support, plates, with_square

from fewshot_ad.api import FewShotError
from fewshot_ad.images import write_image
from fewshot_ad.methods.draem import DRAEM


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
