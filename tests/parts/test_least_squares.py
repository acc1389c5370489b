"""The constraintor that is solved for, against least squares on explicit rows."""

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot_ad.parts import least_squares
from fewshot_ad.parts.least_squares import LeastSquaresConstraintor, window_moments

CHANNELS = 3


def draw_class(seed: int, images: int = 4, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Residuals whose normals are loud in channel 0, and whose anomalies are in channel 1."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(images, CHANNELS, 6, 5, generator=generator)
    maps *= torch.tensor([3.0, 0.5, 1.0])[:, None, None]
    cells = torch.rand(images, 6, 5, generator=generator) < 0.2
    maps[:, 1][cells] += 2.0
    return scale * maps, cells


def rows_of(maps: Tensor) -> np.ndarray:
    """Every 3x3 window, zero outside, as a row: channel by channel, then rows, then columns."""
    padded = np.pad(maps.double().numpy(), ((0, 0), (0, 0), (1, 1), (1, 1)))
    n, c, h, w = maps.shape
    places = [(i, y, x) for i in range(n) for y in range(h) for x in range(w)]
    return np.stack([padded[i, :, y : y + 3, x : x + 3].reshape(c * 9) for i, y, x in places])


def weighted_rows(classes: list[tuple[Tensor, Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    """The problem as one stack of weighted rows: normals to 0, anomalies to themselves."""
    left, right, loudness = [], [], []
    for maps, cells in classes:
        rows, is_anomalous = rows_of(maps), cells.flatten().numpy()
        middle = rows[:, 4::9]
        unit = np.sqrt((middle[~is_anomalous] ** 2).mean())
        for kind, target in ((~is_anomalous, 0.0), (is_anomalous, 1.0)):
            weight = 1 / unit / np.sqrt(kind.sum())
            left.append(weight * rows[kind])
            right.append(weight * target * middle[kind])
        loudness.append((left[-1] ** 2).sum() / left[-1].shape[1])
    mean, unknowns = len(classes) ** -0.5, CHANNELS * 9
    imagined = least_squares.PRIOR * unknowns / sum(int(cells.sum()) for _, cells in classes)
    prior = np.sqrt(imagined * np.mean(loudness)) * np.eye(unknowns)
    left = [*(mean * rows for rows in left), prior]
    right = [*(mean * rows for rows in right), prior[:, 4::9]]
    return np.concatenate(left), np.concatenate(right)


def solve_slowly(classes: list[tuple[Tensor, Tensor]]) -> np.ndarray:
    """Least squares on all rows."""
    return np.linalg.lstsq(*weighted_rows(classes), rcond=None)[0]


def solved(classes: list[tuple[Tensor, Tensor]], seed: int = 0) -> LeastSquaresConstraintor:
    constraintor = LeastSquaresConstraintor(CHANNELS)
    constraintor.solve(classes, seed)
    return constraintor


def direction(kernel: Tensor | np.ndarray) -> np.ndarray:
    """The kernel but for its length, which is a matter of units."""
    flat = np.asarray(kernel, dtype=np.float64).reshape(CHANNELS, -1)
    return flat / np.linalg.norm(flat)


def test_it_is_the_minimum_of_the_squared_loss() -> None:
    classes = [draw_class(0), draw_class(1, images=7, scale=5.0)]
    expected = solve_slowly(classes).T
    np.testing.assert_allclose(direction(solved(classes).kernel), direction(expected), atol=1e-4)


def test_a_narrow_one_is_the_minimum_among_those_of_its_rank() -> None:
    classes = [draw_class(0), draw_class(1, images=7, scale=5.0)]
    left, right = weighted_rows(classes)
    filters = np.linalg.lstsq(left, right, rcond=None)[0]
    parts = np.linalg.svd(left @ filters, full_matrices=False)
    best = parts[0][:, :2] * parts[1][:2]  # what comes through, cut to two directions
    narrow = LeastSquaresConstraintor(CHANNELS, 2)
    narrow.solve(classes)
    found = left @ narrow.kernel.double().numpy().reshape(2, -1).T
    assert narrow(classes[0][0]).shape == (4, 2, 6, 5)
    gram = [each @ each.T / np.linalg.norm(each @ each.T) for each in (best, found)]
    np.testing.assert_allclose(*gram, atol=1e-5)  # alike but for units and a rotation


def test_a_width_beyond_the_channels_is_that_of_the_channels() -> None:
    classes = [draw_class(0)]
    wide = LeastSquaresConstraintor(CHANNELS, 9)
    wide.solve(classes)
    assert torch.equal(wide.kernel, solved(classes).kernel)


def test_a_narrow_one_has_normals_of_unit_length_per_channel() -> None:
    maps, cells = draw_class(0, images=40)
    narrow = LeastSquaresConstraintor(CHANNELS, 2)
    narrow.solve([(maps, cells)])
    unit = maps.permute(0, 2, 3, 1)[~cells].square().mean().sqrt()
    normals = narrow(maps / unit).permute(0, 2, 3, 1)[~cells]
    assert float(normals.square().mean()) == pytest.approx(1.0, rel=1e-3)


def test_forward_filters_the_window_around_each_position() -> None:
    maps, cells = draw_class(0)
    constraintor = solved([(maps, cells)])
    filters = constraintor.kernel.double().numpy().reshape(CHANNELS, -1)
    expected = (rows_of(maps) @ filters.T).reshape(4, 6, 5, CHANNELS).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(constraintor(maps).numpy(), expected, atol=1e-5)


def test_it_changes_nothing_until_it_is_solved() -> None:
    maps, _ = draw_class(0)
    assert torch.equal(LeastSquaresConstraintor(CHANNELS)(maps), maps)


@pytest.mark.parametrize("kind", [True, False])
def test_with_one_kind_alone_it_stays_as_it_is(kind: bool) -> None:
    maps, cells = draw_class(0)
    constraintor = solved([(maps, torch.full_like(cells, kind))])
    assert torch.equal(constraintor(maps), maps)


def test_a_class_without_defects_still_tells_what_is_normal() -> None:
    with_defects, without = draw_class(0), draw_class(1)
    without = without[0], torch.zeros_like(without[1])
    assert not torch.allclose(solved([with_defects, without]).kernel, solved([with_defects]).kernel)


def test_known_normals_have_unit_length_per_channel() -> None:
    maps, cells = draw_class(0, images=40, scale=7.0)
    unit = maps.permute(0, 2, 3, 1)[~cells].square().mean().sqrt()
    normals = solved([(maps, cells)])(maps / unit).permute(0, 2, 3, 1)[~cells]
    assert float(normals.square().mean()) == pytest.approx(1.0, rel=1e-3)


def test_classes_weigh_alike_whatever_their_size_and_scale(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(least_squares, "PRIOR", 0.0)  # more defects make it weaker, and may
    (maps, cells), other = draw_class(0), draw_class(1)
    twice = torch.cat([maps, maps]) * 9, torch.cat([cells, cells])
    kernels = [solved([one, other]).kernel for one in ((maps, cells), twice)]
    torch.testing.assert_close(*kernels, atol=1e-5, rtol=1e-4)


def test_what_tells_no_anomaly_is_taken_out_and_what_tells_one_stays() -> None:
    maps, cells = draw_class(0, images=30)
    after = solved([(maps, cells)])(maps).permute(0, 2, 3, 1)
    before = maps.permute(0, 2, 3, 1)
    contrast = [
        float(x[cells].norm(dim=1).mean() / x[~cells].norm(dim=1).mean()) for x in (before, after)
    ]
    assert contrast[1] > 1.3 * contrast[0]


def test_an_image_has_the_same_bits_alone_and_in_a_batch() -> None:
    maps, cells = draw_class(0)
    constraintor = solved([(maps, cells)])
    alone = torch.cat([constraintor(one[None]) for one in maps])
    assert torch.equal(constraintor(maps), alone)


def test_a_sample_of_positions_stands_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, cells = draw_class(0, images=60)
    whole = window_moments(maps, cells, torch.Generator())
    monkeypatch.setattr(least_squares, "POSITIONS", 200)
    first, again, other = (
        window_moments(maps, cells, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first.normal, again.normal)
    assert not torch.equal(first.normal, other.normal)
    assert float((first.normal - whole.normal).norm() / whole.normal.norm()) < 0.5


def test_few_defects_leave_it_near_the_identity() -> None:
    maps, cells = draw_class(0)
    lone = torch.zeros_like(cells)
    lone[0, 3, 2] = True
    identity = direction(LeastSquaresConstraintor(CHANNELS).kernel)
    strayed = [
        np.linalg.norm(direction(solved([(maps, one)]).kernel) - identity) for one in (lone, cells)
    ]
    assert strayed[0] < strayed[1]
