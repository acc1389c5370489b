"""Where the object is: the first principal component of an image's own patches tells (AnomalyDINO).

AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2. Damm, Laszkiewicz,
Lederer, Fischer. WACV 2025. https://arxiv.org/abs/2405.14529
"""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor
from torch.nn import functional

CENTRE = 0.6  # side of the middle part of an image in which an object is expected
LEAST_IN_CENTRE = 0.35
MOST_AT_BORDER = 0.1  # of the outermost patches: what leaves the image is no single object


def find_foreground(patches: Float[Tensor, "d h w"], threshold: float) -> Bool[Tensor, "h w"]:
    """Patches whose first principal component exceeds ``threshold``, grown and closed by 3x3.

    A component has no sign of its own: the sign is that of the middle of the image, and the other
    one where at most 35 % of the middle would be foreground (the paper's rule).
    """
    component = _first_component(patches)
    mask = component > threshold
    if _central_share(mask) <= LEAST_IN_CENTRE:
        mask = -component > threshold
    return _erode(_dilate(_dilate(mask)))


def stands_free(mask: Bool[Tensor, "h w"]) -> bool:
    """Whether this is an object that fills the middle of an image and hardly meets its border."""
    inner = torch.zeros_like(mask)
    inner[1:-1, 1:-1] = True
    at_border = float(mask[~inner].float().mean())
    return _central_share(mask) > LEAST_IN_CENTRE and at_border <= MOST_AT_BORDER


def _first_component(patches: Float[Tensor, "d h w"]) -> Float[Tensor, "h w"]:
    """In float64, its mean 0 all over and not negative in the middle."""
    rows = patches.flatten(1).T.double()
    rows = rows - rows.mean(dim=0)
    direction = torch.linalg.eigh(rows.T @ rows).eigenvectors[:, -1]
    component = (rows @ direction).view(patches.shape[1:])
    return -component if _middle(component).mean() < 0 else component


def _central_share(mask: Bool[Tensor, "h w"]) -> float:
    return float(_middle(mask).float().mean())


def _middle(values: Shaped[Tensor, "h w"]) -> Shaped[Tensor, "h2 w2"]:
    height, width = values.shape
    top, left = (int(side * (1 - CENTRE) / 2) for side in values.shape)
    return values[top : height - top, left : width - left]


def _dilate(mask: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    return functional.max_pool2d(mask[None, None].float(), 3, 1, 1)[0, 0] > 0


def _erode(mask: Bool[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    return ~_dilate(~mask)
