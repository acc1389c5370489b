"""MuSc: images nobody has labelled judge each other.

MuSc: Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual Scoring of the
Unlabeled Images. Li, Huang, Xue, Zhou. ICLR 2024. https://arxiv.org/abs/2401.16753

A normal patch has a counterpart in many other images, an anomalous one in few. So every other
image of the batch scores a patch by the distance to the nearest of its own, and the mean of the
lowest scores is the anomaly of the patch. Image scores are averaged with those of images that look
alike as a whole.

**Batched**: a score depends on the other images that are judged with it, most of which must be
normal. It is comparable with methods of its own track alone.

Deviations: any backbone in place of CLIP's ViT-L/14 at 336 pixels, and the mean of its deepest
features in place of the class token; features of unit length, so that all levels weigh alike;
negative similarities of images count as none. Support images, of which the paper has none, judge
like the others and are not judged.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fewshot_ad.api import FewShotError, NotFittedError, Prediction, Support, Track
from fewshot_ad.parts.embedding import average_neighbourhood
from fewshot_ad.parts.map_methods import BackboneMethod
from fewshot_ad.parts.maps import fuse, image_score, no_prediction
from fewshot_ad.parts.mutual import MutualRows
from fewshot_ad.parts.parameters import COUNT, SHARE, Odd, check_parameters
from fewshot_ad.parts.support import check_support

__all__ = ["MuSc"]


@dataclass(kw_only=True, eq=False)
class MuSc(BackboneMethod):
    """Distances to the nearest patches of the other images; see the module for the paper.

    Attributes:
        levels: feature maps that are used; the last one tells which images look alike.
        degrees: sides of the squares over which features are averaged, a scoring for each (r).
        lowest_share: share of the judges whose scores count, the lowest ones.
        windows: how many images, itself among them, an image score is averaged over (k); the mean
            of all windows counts, and (1,) leaves scores as they are.
        unit_length: match by angle; the paper matches by Euclidean distance.
    """

    track: ClassVar[Track] = "batched"
    recipe: ClassVar[int] = 2
    min_shots: ClassVar[int] = 0
    degrees: tuple[int, ...] = (1, 3, 5)
    lowest_share: float = 0.3
    windows: tuple[int, ...] = (1, 2, 3)
    unit_length: bool = True
    support_: list[Tensor] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(self, lowest_share=SHARE)
        for name, allowed in (("degrees", Odd()), ("windows", COUNT)):
            values = getattr(self, name)
            if not values or any(value not in allowed for value in values):
                raise FewShotError(f"{name} are {values}: expected one or more, each {allowed}")

    def fit(self, support: Support) -> "MuSc":
        """Remember the features of the support, if there is any."""
        check_support(support, self.min_shots)
        self.support_ = self.features(support.images)
        return self

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Let the images score each other.

        Raises:
            FewShotError: one image came alone, and there is no support; or the support has
                another size.
        """
        if self.support_ is None:
            raise NotFittedError("MuSc waits for fit(support): call it first, 0 shots will do")
        if not len(images):
            return no_prediction(images)
        if len(images) + len(self.support_[0]) < 2:
            raise FewShotError(
                "MuSc was given one image and no support, so nothing can judge it: predict two "
                "images or more at once, or give support images"
            )
        queries = self.features(images)
        grids = [list(each[0].shape[-2:]) for each in (queries, self.support_)]
        if len(self.support_[0]) and grids[0] != grids[1]:
            raise FewShotError(
                f"images give {grids[0]} positions, the support {grids[1]}: MuSc needs images of "
                "the size of the support"
            )
        pairs = zip(queries, self.support_, strict=True)
        size = images.shape[-2], images.shape[-1]
        anomaly_map = fuse([self._level(maps, support) for maps, support in pairs], size).cpu()
        alike = queries[-1].mean(dim=(2, 3)).cpu()
        return Prediction(rescored(image_score(anomaly_map), alike, self.windows), anomaly_map)

    def _level(
        self, queries: Float[Tensor, "b c h w"], support: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, "b h w"]:
        """Mean over the degrees of aggregation (section 3.1)."""
        found = []
        for degree in self.degrees:
            maps = average_neighbourhood(torch.cat([queries, support]), degree)
            maps = functional.normalize(maps, dim=1) if self.unit_length else maps
            found.append(mutual_scores(maps, len(queries), self.lowest_share))
        return torch.stack(found).mean(dim=0)


def mutual_scores(
    maps: Float[Tensor, "n c h w"], judged: int, lowest_share: float
) -> Float[Tensor, "b h w"]:
    """Mean of the lowest scores that a position gets from all other images (section 3.2).

    Two images are compared once for both. Holds a score for every position and other image.

    Args:
        maps: features of all images.
        judged: how many of them, the first ones, are scored.
        lowest_share: share of the other images whose scores count, one image at least.
    """
    images = MutualRows([*maps.float().flatten(2).mT.contiguous()])
    scores = maps.new_empty(judged, len(maps) - 1, maps[0, 0].numel())
    for other in range(len(maps)):
        for one in range(min(other, judged)):
            here, there = images.nearest(one, other)
            scores[one, other - 1] = here
            if other < judged:
                scores[other, one] = there
    count = max(1, round(lowest_share * scores.shape[1]))
    found = [of_image.sort(dim=0).values[:count].mean(dim=0) for of_image in scores]
    return torch.stack(found).unflatten(1, maps.shape[2:])


def rescored(
    scores: Float[Tensor, " b"], features: Float[Tensor, "b c"], windows: tuple[int, ...]
) -> Float[Tensor, " b"]:
    """Image scores averaged over the images that look most alike, by similarity (section 3.3).

    Args:
        scores: of the images.
        features: of the images as a whole; those at small angles look alike.
        windows: numbers of images, itself first, that are averaged over; their mean is taken.
    """
    unit = functional.normalize(features, dim=1)
    similarity = (unit @ unit.T).clamp(min=0)
    order = similarity.clone().fill_diagonal_(torch.inf).sort(descending=True, stable=True).indices
    weight, score = similarity.gather(1, order), scores[order]
    found = [(weight[:, :k] * score[:, :k]).sum(dim=1) / weight[:, :k].sum(dim=1) for k in windows]
    return torch.stack(found).mean(dim=0)
