"""How far a rebuilt image is from the original, and a predicted mask from the true one.

SSIM and the focal loss are kornia's: both have pitfalls in precision and at borders that a library
in use has met before us, and kornia has both, on any device and with gradients, where torchmetrics
has SSIM alone and scikit-image no gradient. It is imported when it is first used, since that takes
seconds. Similarity of gradient magnitudes is in no library we know of and stands here.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

GMS_CONSTANT = 0.0026  # of Xue et al. (2014), for colours from 0 to 1
PREWITT = ((-1.0, 0.0, 1.0),) * 3


def dissimilarity(
    rebuilt: Float[Tensor, "b c h w"], images: Float[Tensor, "b c h w"], window: int = 11
) -> Float[Tensor, "b h w"]:
    """1 - SSIM, the mean over channels; 0 for equal images, 2 at most.

    Image Quality Assessment: From Error Visibility to Structural Similarity. Wang, Bovik, Sheikh,
    Simoncelli. IEEE TIP 2004. https://doi.org/10.1109/TIP.2003.819861

    Args:
        rebuilt: colours from 0 to 1, larger than half the window.
        images: what they should be.
        window: odd side of the Gaussian window of deviation 1.5, in pixels.
    """
    from kornia.metrics import ssim

    return 1 - ssim(rebuilt, images, window).mean(dim=1)


def gradient_dissimilarity(
    rebuilt: Float[Tensor, "b c h w"], images: Float[Tensor, "b c h w"], scales: int = 4
) -> list[Float[Tensor, "b _ _"]]:
    """1 - GMS at full size and at every halving of it (RIAD, eq. 2 and 3).

    Reconstruction by inpainting for visual anomaly detection. Zavrtanik, Kristan, Skocaj. Pattern
    Recognition 2021. https://doi.org/10.1016/j.patcog.2020.107706

    Args:
        rebuilt: colours from 0 to 1; channels are averaged.
        images: what they should be.
        scales: how many sizes; one that would have no pixel is left out.
    """
    pair = rebuilt.mean(dim=1, keepdim=True), images.mean(dim=1, keepdim=True)
    found: list[Tensor] = []
    for _ in range(scales):
        a, b = (_gradient_magnitude(image) for image in pair)
        similarity = (2 * a * b + GMS_CONSTANT) / (a.square() + b.square() + GMS_CONSTANT)
        found.append(1 - similarity)
        if min(pair[0].shape[-2:]) < 2:
            break
        pair = functional.avg_pool2d(pair[0], 2), functional.avg_pool2d(pair[1], 2)
    return found


def focal_loss(
    logits: Float[Tensor, "b h w"], masks: Bool[Tensor, "b h w"], gamma: float = 2.0
) -> Float[Tensor, ""]:
    """Cross-entropy in which pixels that are sure and right hardly count; the mean over pixels.

    Focal Loss for Dense Object Detection. Lin, Goyal, Girshick, He, Dollar. ICCV 2017.
    https://arxiv.org/abs/1708.02002
    """
    from kornia.losses import binary_focal_loss_with_logits

    target = masks.to(logits)[:, None]
    return binary_focal_loss_with_logits(logits[:, None], target, alpha=None, gamma=gamma).mean()


def dice_loss(
    logits: Float[Tensor, "b h w"], masks: Bool[Tensor, "b h w"], smooth: float = 1.0
) -> Float[Tensor, ""]:
    """1 - twice the overlap over the sum of both areas, over the whole batch.

    V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image Segmentation. Milletari,
    Navab, Ahmadi. 3DV 2016. https://arxiv.org/abs/1606.04797
    """
    found, target = logits.sigmoid(), masks.to(logits)
    overlap = (found * target).sum()
    return 1 - (2 * overlap + smooth) / (found.sum() + target.sum() + smooth)


def _gradient_magnitude(grey: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b h w"]:
    """By Prewitt's filters, a third each; the border is repeated."""
    across = grey.new_tensor(PREWITT)[None, None] / 3
    padded = functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    right = functional.conv2d(padded, across)[:, 0]
    down = functional.conv2d(padded, across.mT)[:, 0]
    return (right.square() + down.square() + torch.finfo(grey.dtype).eps).sqrt()
