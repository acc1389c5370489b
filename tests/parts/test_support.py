import pytest
import torch

from fewshot_ad.api import FewShotError, Support
from fewshot_ad.parts.support import check_support


@pytest.mark.parametrize(("shots", "min_shots"), [(0, 0), (1, 1), (4, 1)])
def test_enough_images_pass(shots: int, min_shots: int) -> None:
    check_support(Support("gear", torch.zeros(shots, 3, 4, 4)), min_shots)


def test_too_few_images_are_counted() -> None:
    with pytest.raises(FewShotError, match=r"^gear: 1 support images, at least 2 are needed$"):
        check_support(Support("gear", torch.zeros(1, 3, 4, 4)), 2)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_are_finite(value: float) -> None:
    images = torch.zeros(2, 3, 4, 4)
    images[1, 2, 3, 0] = value
    with pytest.raises(FewShotError, match="gear: a support image holds NaN or infinite values"):
        check_support(Support("gear", images), 1)
