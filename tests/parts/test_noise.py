import math

import pytest
import torch

from fewshot_ad.parts.noise import (
    SIMPLEX_PEAK,
    perlin_noise,
    simplex_noise,
    standardised,
)

ROOT3 = math.sqrt(3)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def perlin_by_loop(size, cells, generator, turn) -> torch.Tensor:
    reach = [math.ceil(number / math.sqrt(2)) + 1 for number in cells]
    angles = (2 * math.pi * torch.rand([2 * r + 1 for r in reach], generator=generator)).tolist()
    turn = math.radians(turn)

    def fade(t):
        return 6 * t**5 - 15 * t**4 + 10 * t**3

    found = torch.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            v, u = (row + 0.5) / size[0] - 0.5, (column + 0.5) / size[1] - 0.5
            y = (v * math.cos(turn) - u * math.sin(turn)) * cells[0] + reach[0]
            x = (v * math.sin(turn) + u * math.cos(turn)) * cells[1] + reach[1]
            for i in (math.floor(y), math.floor(y) + 1):
                for j in (math.floor(x), math.floor(x) + 1):
                    slope = math.sin(angles[i][j]) * (y - i) + math.cos(angles[i][j]) * (x - j)
                    weight = fade(1 - abs(y - i)) * fade(1 - abs(x - j))
                    found[row, column] += math.sqrt(2) * weight * slope
    return found


def simplex_by_loop(size, frequency, generator) -> torch.Tensor:
    """Every lattice point adds what it has: which triangle a pixel is in does not matter."""
    begin = torch.rand(1, 2, 1, 1, generator=generator).flatten().tolist()
    places = [
        [(row * frequency + begin[0], column * frequency + begin[1]) for column in range(size[1])]
        for row in range(size[0])
    ]
    far = [y + (ROOT3 - 1) / 2 * (y + x) for line in places for y, x in line]
    wide = [x + (ROOT3 - 1) / 2 * (y + x) for line in places for y, x in line]
    shape = (1, math.floor(max(far)) + 2, math.floor(max(wide)) + 2)
    angles = (2 * math.pi * torch.rand(shape, generator=generator))[0].tolist()
    found = torch.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = places[row][column]
            for i, line in enumerate(angles):
                for j, angle in enumerate(line):
                    down = y - (i - (3 - ROOT3) / 6 * (i + j))
                    right = x - (j - (3 - ROOT3) / 6 * (i + j))
                    near = max(0.0, 0.5 - down**2 - right**2) ** 4
                    slope = math.sin(angle) * down + math.cos(angle) * right
                    found[row, column] += near * slope / SIMPLEX_PEAK
    return found


@pytest.mark.parametrize("turn", [0.0, 37.0, -90.0])
def test_perlin_noise_is_that_of_single_pixels(turn: float) -> None:
    found = perlin_noise((7, 10), (2, 4), seeded(3), turn)
    torch.testing.assert_close(
        found, perlin_by_loop((7, 10), (2, 4), seeded(3), turn), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("seed", range(4))
def test_simplex_noise_is_the_sum_over_all_lattice_points(seed: int) -> None:
    found = simplex_noise(1, (9, 6), seeded(seed), frequency=0.3, octaves=1)[0]
    torch.testing.assert_close(found, simplex_by_loop((9, 6), 0.3, seeded(seed)), atol=1e-5, rtol=0)


def test_octaves_double_the_frequency_and_lose_amplitude() -> None:
    generator = seeded()
    octaves = [simplex_noise(2, (8, 8), generator, frequency=f, octaves=1) for f in (0.1, 0.2, 0.4)]
    expected = octaves[0] + 0.5 * octaves[1] + 0.25 * octaves[2]
    found = simplex_noise(2, (8, 8), seeded(), frequency=0.1, octaves=3, persistence=0.5)
    torch.testing.assert_close(found, expected)


def test_the_peak_is_what_the_best_gradients_give_in_a_triangle() -> None:
    corners = torch.tensor([(0.0, 0.0), (0.5 + ROOT3 / 6, ROOT3 / 6 - 0.5), (ROOT3 / 3, ROOT3 / 3)])
    weights = torch.cartesian_prod(*[torch.linspace(0, 1, 200)] * 2)
    weights = weights[weights.sum(dim=1) <= 1]
    places = torch.cat([1 - weights.sum(dim=1, keepdim=True), weights], dim=1) @ corners
    distance = torch.cdist(places, corners)
    sums = ((0.5 - distance**2).clamp(min=0) ** 4 * distance).sum(dim=1)
    assert float(sums.max()) == pytest.approx(SIMPLEX_PEAK, rel=1e-3)


def test_fields_differ_and_no_pixel_is_special() -> None:
    fields = simplex_noise(400, (4, 4), seeded(), frequency=0.4, octaves=1)
    assert fields.abs().max() <= 1
    assert not torch.equal(fields[0], fields[1])
    deviation = fields.std(dim=0)
    assert deviation.min() > 0.8 * deviation.max()  # a lattice that began at a pixel would show


def test_standardised_fields_have_mean_0_and_deviation_1() -> None:
    fields = standardised(torch.cat([simplex_noise(2, (16, 16), seeded()), torch.ones(1, 16, 16)]))
    torch.testing.assert_close(fields.mean(dim=(1, 2)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(fields.std(dim=(1, 2), correction=0), torch.tensor([1.0, 1.0, 0.0]))


def test_same_generator_same_bits() -> None:
    assert torch.equal(simplex_noise(2, (8, 9), seeded(5)), simplex_noise(2, (8, 9), seeded(5)))
    assert torch.equal(
        perlin_noise((8, 9), (3, 3), seeded(5)), perlin_noise((8, 9), (3, 3), seeded(5))
    )
