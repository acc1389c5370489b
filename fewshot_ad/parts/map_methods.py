"""What methods have in common that judge an image by its anomaly map, mostly from frozen features.

A method of this kind says how ``fit`` learns and how ``judge`` sees one image; bringing its maps to
the size of the image, blurring and scoring are the same for all and stand here.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.api import Method, NotFittedError, Prediction
from fewshot_ad.parts.feature_cache import FeatureCache, load_features
from fewshot_ad.parts.maps import finish, image_score, no_prediction


class Judgement(NamedTuple):
    """What a method says of one image.

    Attributes:
        maps: anomaly of every position, one map or one for each level, on grids of any size.
        score: of the image; None for the highest point of the finished map.
    """

    maps: Sequence[Float[Tensor, "1 _ _"]]
    score: Float[Tensor, ""] | None = None


@dataclass(kw_only=True, eq=False)
class MapMethod(Method):
    """A method that judges image by image; what it learns is None before ``fit``.

    Attributes:
        blur: sigma of the Gaussian over the map, in pixels.
    """

    fusion: ClassVar[Literal["mean", "sum"]] = "mean"
    blur: float = 4.0

    @abstractmethod
    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Look at one image."""

    @torch.no_grad()
    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Judge each image on its own.

        Raises:
            FewShotError: ``fit`` was not called, or the images do not suit the support.
        """
        self.check_fitted()
        if not len(images):
            return no_prediction(images)
        judged = [self._finished(image[None]) for image in images]
        scores, maps = (torch.cat(each).cpu() for each in zip(*judged, strict=True))
        return Prediction(scores, maps)

    def check_fitted(self) -> None:
        """Raise ``NotFittedError`` while all that ``fit`` learns is None."""
        learned = [one.name for one in fields(self) if not one.init and one.default is None]
        if all(getattr(self, name) is None for name in learned):
            raise NotFittedError(
                f"{type(self).__name__} has seen no support yet: call fit(support) first"
            )

    def _finished(
        self, image: Float[Tensor, "1 3 h w"]
    ) -> tuple[Float[Tensor, " 1"], Float[Tensor, "1 h w"]]:
        maps, score = self.judge(image)
        size = image.shape[-2], image.shape[-1]
        anomaly_map = finish(maps, size, self.blur, self.fusion)
        return image_score(anomaly_map) if score is None else score.view(1), anomaly_map


@dataclass(kw_only=True, eq=False)
class BackboneMethod(Method):
    """A method that has a frozen backbone.

    Attributes:
        backbone: name, file or factory of a feature extractor.
        weights_dir: folder with weights of timm backbones.
        levels: which feature maps are used, rising, counted from 1.
    """

    backbone: str = "tiny"
    weights_dir: str | None = None
    levels: tuple[int, ...] = (2, 3)

    @property
    def features(self) -> FeatureCache:
        """The backbone with its memory, which all methods of this process share."""
        folder = None if self.weights_dir is None else Path(self.weights_dir)
        return load_features(self.backbone, self.levels, weights_dir=folder, device=self.device)

    @property
    def weights_digest(self) -> str:
        """Digest of the backbone's weights."""
        return self.features.backbone.digest


@dataclass(kw_only=True, eq=False)
class FeatureMethod(BackboneMethod, MapMethod):
    """A method that judges image by image, by the features of a frozen backbone."""
