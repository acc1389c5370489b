"""Distances of features by their angle: 1 - cosine, position by position or of whole maps."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Cosine = Literal["position", "whole_map"]
"""Of what the angle is taken: of every position's features, or of all of an image at once."""

Levels = Sequence[Float[Tensor, "b _ _ _"]]


def cosine_distances(taught: Levels, learned: Levels) -> list[Float[Tensor, "b _ _"]]:
    """1 - cosine of the two features of every position, one map per level.

    This is half their squared distance once both have unit length.
    """
    pairs = zip(taught, learned, strict=True)
    return [1 - functional.cosine_similarity(one, other) for one, other in pairs]


def whole_map_distances(taught: Levels, learned: Levels) -> list[Float[Tensor, " b"]]:
    """1 - cosine of all features of an image taken as one long vector, per level."""
    pairs = zip(taught, learned, strict=True)
    return [1 - functional.cosine_similarity(a.flatten(1), b.flatten(1)) for a, b in pairs]


def cosine_loss(taught: Levels, learned: Levels, cosine: Cosine = "position") -> Float[Tensor, ""]:
    """Mean distance, the sum over levels."""
    distances = cosine_distances if cosine == "position" else whole_map_distances
    return torch.stack([each.mean() for each in distances(taught, learned)]).sum()
