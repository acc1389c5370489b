import math

import pytest
import torch
from torch import Tensor

from fewshot_ad.parts.rotations import rotate, rotated_copies


def reflected(place: float, size: int) -> float:
    """A place outside comes back in, mirrored at the centre of the outermost pixel."""
    place = abs(place) % (2 * (size - 1))
    return min(place, 2 * (size - 1) - place)


def rotate_by_loop(image: Tensor, degrees: float) -> Tensor:
    height, width = image.shape[1:]
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    found = torch.empty_like(image)
    for row in range(height):
        for column in range(width):
            right, down = column - middle_column, row - middle_row
            x = reflected(middle_column + cosine * right - sine * down, width)
            y = reflected(middle_row + sine * right + cosine * down, height)
            left, top = min(int(x), width - 2), min(int(y), height - 2)
            along, below = x - left, y - top
            upper = (1 - along) * image[:, top, left] + along * image[:, top, left + 1]
            lower = (1 - along) * image[:, top + 1, left] + along * image[:, top + 1, left + 1]
            found[:, row, column] = (1 - below) * upper + below * lower
    return found


@pytest.mark.parametrize("size", [(9, 9), (7, 12)])
@pytest.mark.parametrize("degrees", [45.0, 200.0])
def test_an_image_is_turned_about_its_centre(size: tuple[int, int], degrees: float) -> None:
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        rotate(image[None], degrees)[0], rotate_by_loop(image, degrees), atol=1e-5, rtol=1e-4
    )


def test_quarter_turns_are_counterclockwise_and_no_turn_changes_nothing() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotate(images, 90), images.rot90(1, dims=(2, 3)))
    assert torch.equal(rotate(images, 360), images)


def test_copies_of_an_image_stand_together_and_hang_on_it_alone() -> None:
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    copies = rotated_copies(images, 5)
    assert len(copies) == 15
    assert torch.equal(copies[::5], images)
    assert torch.equal(copies[6], rotate(images[1:2], 72)[0])
    assert torch.equal(rotated_copies(images[:2], 5), copies[:10])
    assert torch.equal(rotated_copies(images, 1), images)
