"""The stage of ResAD that learns nothing: images to features, features to residuals."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from fewshot_ad.parts.embedding import Embedding
from fewshot_ad.parts.feature_cache import FeatureCache
from fewshot_ad.parts.residuals import Metric, match_maps, residual, shared_matcher, take

ResidualForm = Literal["signed", "squared"]
Matcher = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ResidualStage:
    """Frozen features, what is done to them, and how the nearest support position is subtracted."""

    features: FeatureCache
    embedding: Embedding
    metric: Metric = "euclidean"
    form: ResidualForm = "signed"

    def embed(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """Feature maps of every level, [b c h w] each."""
        return self.embedding(self.features(images))

    def embed_once(self, images: Float[Tensor, "b 3 h w"]) -> list[Tensor]:
        """The same maps of images that will not be asked for again; the cache stays as it is."""
        return self.embedding(self.features.backbone(images))

    def subtract(self, queries: list[Tensor], supports: list[Tensor]) -> list[Tensor]:
        """Residual maps of every level: each position less its nearest support position.

        Remembers what was matched, since the next episode shares images with this one.
        """
        return self._subtract(queries, supports, partial(shared_matcher, metric=self.metric))

    def subtract_once(self, queries: list[Tensor], supports: list[Tensor]) -> list[Tensor]:
        """The same residuals, quicker for pairs of images that will not meet again."""
        return self._subtract(queries, supports, partial(match_maps, metric=self.metric))

    def _subtract(
        self, queries: list[Tensor], supports: list[Tensor], matcher: Matcher
    ) -> list[Tensor]:
        found = []
        for query, support in zip(queries, supports, strict=True):
            _, index = matcher(query, support)
            found.append(residual(query, take(support, index), self.form))
        return found

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the residuals of every level."""
        return self.embedding.widths(self.features.backbone.channels)
