"""One-class losses of the feature constraintors: normals together, anomalies where they were.

Throughout, ``constrained`` are constrained vectors, ``residuals`` the vectors before the
constraintor (never a path of gradients), ``is_anomalous`` the label of each. A batch without
normals, or without anomalies, loses only that term.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from fewshot_ad.parts.violations import masked_mean, weighted_barrier


def spread(vectors: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """Distance from the centre: sqrt(|x| + 1) - 1, the norm itself not squared (ResAD, eq. 2)."""
    return (torch.linalg.vector_norm(vectors, dim=1) + 1).sqrt() - 1


def abnormal_invariant_loss(
    constrained: Float[Tensor, "n c"],
    residuals: Float[Tensor, "n c"],
    is_anomalous: Bool[Tensor, " n"],
) -> Float[Tensor, ""]:
    """Mean over all vectors of normals' spread and of how far anomalies moved (ResAD, eq. 2)."""
    moved = torch.linalg.vector_norm(constrained - residuals.detach(), dim=1)
    return torch.where(is_anomalous, moved, spread(constrained)).sum() / max(1, len(moved))


def released_invariant_loss(
    constrained: Float[Tensor, "n c"],
    residuals: Float[Tensor, "n c"],
    is_anomalous: Bool[Tensor, " n"],
) -> Float[Tensor, ""]:
    """Eq. 2 as released: mean spread of normals plus mean squared error of anomalies."""
    squared_error = (constrained - residuals.detach()).square().mean(dim=1)
    return masked_mean(spread(constrained), ~is_anomalous) + masked_mean(
        squared_error, is_anomalous
    )


def invariance(
    constrained: Float[Tensor, "n c"],
    residuals: Float[Tensor, "n c"],
    is_anomalous: Bool[Tensor, " n"],
) -> Float[Tensor, ""]:
    """Keeps anomalies what they were: mean squared error plus 1 - cosine similarity (ResAD++)."""
    target = residuals.detach()
    squared_error = (constrained - target).square().mean(dim=1)
    turned = 1 - functional.cosine_similarity(constrained, target, dim=1)
    return masked_mean(squared_error + turned, is_anomalous)


@torch.no_grad()
def contraction_radius(
    constrained: Float[Tensor, "n c"],
    is_anomalous: Bool[Tensor, " n"],
    largest: float = 0.4,
    quantile: float = 0.05,
    smallest: float = 0.1,
) -> float:
    """Radius of the shell that normals are pulled onto.

    0.9 of a low quantile of the anomalies' spread, between ``smallest`` and ``largest``. The
    released code takes ``quantile=0`` and ``smallest=0``: one anomaly near zero, as at the border
    of a mask, makes the radius of the whole batch collapse.
    """
    if not is_anomalous.any():
        return largest
    ranked = spread(constrained[is_anomalous]).sort().values
    nearest = float(ranked[int(quantile * len(ranked))])
    return max(smallest, min(0.9 * nearest, largest))


def bidirectional_contraction(
    constrained: Float[Tensor, "n c"],
    residuals: Float[Tensor, "n c"],
    is_anomalous: Bool[Tensor, " n"],
    radius: float,
    margin: float = 0.1,
) -> Float[Tensor, ""]:
    """Log-barrier: normals onto a thin shell, anomalies kept and a margin beyond it (ResAD++)."""
    distance = spread(constrained)
    normal, anomalous = distance[~is_anomalous], distance[is_anomalous]
    shell = weighted_barrier(normal - radius) + weighted_barrier(0.99 * radius - normal)
    beyond = weighted_barrier(radius + margin - anomalous)
    return shell + invariance(constrained, residuals, is_anomalous) + beyond


def orthogonality_penalty(
    constrained: Float[Tensor, "n c"], is_anomalous: Bool[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Half the mean squared distance of the normals' Gram matrix X'X from the identity (ResAD++).

    As released, the Gram matrix is a sum and grows with the number of vectors. 0 without normals.
    """
    normal = constrained[~is_anomalous]
    identity = torch.eye(normal.shape[1], dtype=normal.dtype, device=normal.device)
    penalty = 0.5 * (normal.T @ normal - identity).square().mean()
    return penalty if len(normal) else normal.sum()
