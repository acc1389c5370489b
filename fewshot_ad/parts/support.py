"""What every ``fit`` asks of its support."""

import torch

from fewshot_ad.api import FewShotError, Support


def check_support(support: Support, min_shots: int) -> None:
    """Refuse too few images, and images that are not finite.

    Raises:
        FewShotError: says how many there are and how many are needed.
    """
    shots = len(support.images)
    if shots < min_shots:
        raise FewShotError(
            f"{support.target_class}: {shots} support images, at least {min_shots} are needed"
        )
    if not torch.isfinite(support.images).all():
        raise FewShotError(f"{support.target_class}: a support image holds NaN or infinite values")
