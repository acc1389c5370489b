"""What every ``fit`` asks of its support."""

import torch

from fewshot_ad.api import FewShotError, LabelledBatch, Support


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


def masked_anomalies(support: Support, learner: str, otherwise: str) -> LabelledBatch:
    """The labelled anomalies of a support that have a mask.

    Args:
        support: with its anomalies.
        learner: the network that learns from them, to speak of it by.
        otherwise: what the user may do who has none, as ``--set labels=synthetic``.

    Raises:
        FewShotError: there is none.
    """
    given = support.anomalous
    has_mask = torch.zeros(0) if given is None else given.masks.flatten(1).any(dim=1)
    if given is None or not has_mask.any():
        raise FewShotError(
            f"{support.target_class}: {len(has_mask)} labelled anomalies and none with a mask, "
            f"from which {learner} learns: ask for --anomalous-shots 1 or more where there are "
            f"masks, or {otherwise}"
        )
    images, masks = given.images[has_mask], given.masks[has_mask]
    return LabelledBatch(images, masks, given.is_anomalous[has_mask])
