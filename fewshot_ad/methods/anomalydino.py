"""AnomalyDINO: nearest neighbours of patches of a vision transformer, by angle.

AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2. Damm, Laszkiewicz,
Lederer, Fischer. WACV 2025. https://arxiv.org/abs/2405.14529, code:
https://github.com/dammsi/AnomalyDINO

Patches of the support images, turned by multiples of 45 degrees, are the bank. A patch is as
anomalous as its cosine distance to the nearest patch of the bank; patches of the background, told
by the first principal component of the image itself, are not anomalous at all. An image is as
anomalous as its one per cent of most anomalous patches.

Deviations: any backbone is taken, its levels joined on the grid of the first; images are squares,
not cut to multiples of the patch; whether masks are used is decided by the support images, where
the paper's authors looked at one of them: the object must fill the middle and stand free of the
border; an image without any foreground is not masked. ``PAPER`` holds the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_ad.api import Preprocess, Support, Track
from fewshot_ad.parts.foreground import find_foreground, stands_free
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.maps import image_score
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, POSITIVE_SHARE, check_parameters
from fewshot_ad.parts.patches import extract_patches
from fewshot_ad.parts.residuals import shared_matcher
from fewshot_ad.parts.rotations import rotated_copies
from fewshot_ad.parts.support import check_support

__all__ = ["AnomalyDINO"]


@dataclass(kw_only=True, eq=False)
class AnomalyDINO(FeatureMethod):
    """Cosine distance to the nearest support patch; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is DINOv2's ViT-S/14.
        levels: which feature maps are joined; of a transformer, 4 is the last block.
        rotations: at how many angles every support image is shown; 1 shows it as it is.
        mask: look at the foreground only ``always``, ``never``, or, by ``auto``, where objects
            stand free in all support images.
        mask_threshold: above it, the first principal component is foreground; it has mean 0 and
            the scale of the features: 0.25 suits ``tiny``, the paper's 10 DINOv2.
        top_share: share of most anomalous patches whose mean is the image score.
    """

    track: ClassVar[Track] = "training_free"
    PAPER: ClassVar[Mapping[str, Any]] = {
        "backbone": "vit_small_patch14_dinov2.lvd142m",
        "levels": (4,),
        "mask_threshold": 10.0,
        "preprocess": Preprocess(size=448),
    }
    rotations: int = 8
    mask: Literal["auto", "always", "never"] = "auto"
    mask_threshold: float = 0.25
    top_share: float = 0.01
    bank_: Float[Tensor, "n d rh w"] | None = field(default=None, init=False, repr=False)
    is_masked_: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(
            self,
            rotations=COUNT,
            mask_threshold=NOT_NEGATIVE,
            top_share=POSITIVE_SHARE,
        )

    def fit(self, support: Support) -> "AnomalyDINO":
        """Remember the patches of the turned support; decide whether to look for foreground."""
        check_support(support, self.min_shots)
        patches = extract_patches(self.features, rotated_copies(support.images, self.rotations))
        turned = patches.unflatten(0, (-1, self.rotations))  # one tall map of each support image
        self.bank_ = turned.transpose(1, 2).flatten(2, 3)
        masks = (find_foreground(each, self.mask_threshold) for each in turned[:, 0])
        self.is_masked_ = self.mask == "always" or (
            self.mask == "auto" and all(stands_free(each) for each in masks)
        )
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Cosine distance to the nearest patch of the bank, 0 in the background."""
        assert self.bank_ is not None
        patches = extract_patches(self.features, image)
        distance, _ = shared_matcher(patches, self.bank_, "cosine")
        if self.is_masked_:
            distance = distance * self._foreground(patches[0])
        top = max(1, int(self.top_share * distance.numel()))
        return Judgement([distance], image_score(distance, top)[0])

    def _foreground(self, patches: Float[Tensor, "d h w"]) -> Bool[Tensor, "h w"]:
        mask = find_foreground(patches, self.mask_threshold)
        return mask | ~mask.any()  # with nothing in front, everything is looked at
