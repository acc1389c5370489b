import numpy as np
import pytest
import torch
from plates import PLAIN, SIZE, as_images, plate_support, plates
from scipy.ndimage import prewitt, zoom
from torch.nn import functional

from fewshot_ad.methods.riad import LAST, RIAD, deal_cells
from fewshot_ad.parts.image_losses import GMS_CONSTANT
from fewshot_ad.parts.training import step_generator


def small(**changes) -> RIAD:
    settings = {"preprocess": PLAIN, "device": "cpu", "inner_size": SIZE, "width": 4, "steps": 2}
    return RIAD(**(settings | {"blur": 0.0, "cells": (4, 8)} | changes))


@pytest.mark.parametrize(("size", "side", "n_sets"), [(16, 4, 3), (10, 3, 2), (8, 8, 4)])
def test_cells_are_dealt_out_once_and_evenly(size: int, side: int, n_sets: int) -> None:
    sets = deal_cells(size, side, n_sets, torch.Generator().manual_seed(1))
    assert torch.equal(sets.sum(dim=0), torch.ones(size, size, dtype=torch.long))
    counts = [0] * n_sets
    for top in range(0, size, side):
        for left in range(0, size, side):
            cell = sets[:, top : top + side, left : left + side].flatten(1)
            assert torch.equal(cell.all(dim=1), cell.any(dim=1))
            counts[int(cell[:, 0].long().argmax())] += 1
    assert max(counts) - min(counts) <= 1


def test_no_pixel_is_rebuilt_from_its_own_cell() -> None:
    method, colours = small().fit(plate_support(1)), plates(1, seed=3)
    assert method.network_ is not None
    other = colours.clone()
    sets = deal_cells(SIZE, 8, 3, step_generator(0, LAST))
    cell = sets[1]
    other[..., cell] = 0.9
    rebuilt, again = (
        method._painted(method.network_, images, 8, step_generator(0, LAST))
        for images in (colours, other)
    )
    torch.testing.assert_close(rebuilt[..., cell], again[..., cell])
    assert not torch.allclose(rebuilt[..., ~cell], again[..., ~cell])


def dissimilarity_by_scipy(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    a, b = (
        np.hypot(*(prewitt(grey, axis, mode="nearest") / 3 for axis in (0, 1)))
        for grey in (one, other)
    )
    return 1 - (2 * a * b + GMS_CONSTANT) / (a**2 + b**2 + GMS_CONSTANT)


def test_the_map_is_the_mean_over_cells_and_scales() -> None:
    method, colours = small().fit(plate_support(2)), plates(1, seed=3)
    assert method.network_ is not None
    expected = np.zeros((SIZE, SIZE))
    for side in method.cells:
        rebuilt = torch.zeros_like(colours)
        for hidden in deal_cells(SIZE, side, 3, step_generator(0, LAST)):
            blanked = torch.where(hidden, torch.zeros(()), colours)
            rebuilt[..., hidden] = method.network_(blanked)[..., hidden]
        pair = [images[0].mean(dim=0).double().numpy() for images in (rebuilt, colours)]
        for _ in range(4):
            found = torch.from_numpy(dissimilarity_by_scipy(*pair))[None, None]
            wide = functional.interpolate(found, (SIZE, SIZE), mode="bilinear")
            expected += wide[0, 0].numpy() / 8
            pair = [zoom(g, 0.5, order=1, grid_mode=True, mode="nearest") for g in pair]
    found = method.predict(as_images(colours)).anomaly_map[0]
    np.testing.assert_allclose(found, expected, atol=5e-3)  # what holds roots from 0


def test_the_loss_is_the_weighted_sum_and_falls() -> None:
    images, rebuilt = plates(2), plates(2, seed=7)
    squared = float(small(gms_weight=0.0, ssim_weight=0.0)._loss(rebuilt, images))
    assert squared == pytest.approx(float(((rebuilt - images) ** 2).mean()), rel=1e-5)
    gradients = float(small(gms_weight=2.0, ssim_weight=0.0)._loss(rebuilt, images)) - squared
    structure = float(small(gms_weight=0.0, ssim_weight=3.0)._loss(rebuilt, images)) - squared
    whole = float(small(gms_weight=1.0, ssim_weight=1.0)._loss(rebuilt, images))
    assert whole == pytest.approx(squared + gradients / 2 + structure / 3, rel=1e-4)
    support, losses = plate_support(2), []
    for steps in (1, 20):
        method = small(steps=steps).fit(support)
        assert method.network_ is not None
        painted = method._painted(method.network_, images, 4, step_generator(0, LAST))
        losses.append(float(method._loss(painted, images)))
    assert losses[1] < 0.8 * losses[0]
