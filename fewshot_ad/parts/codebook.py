"""A codebook of normal residuals (ResAD++): what a residual would look like if it were normal."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.residuals import match
from fewshot_ad.parts.seeding import seeded_weights


class Codebook(nn.Module):
    """Vectors that follow the normal residuals of one level; first within 1 / ``entries`` of 0."""

    def __init__(self, channels: int, entries: int = 1536, seed: int = 0) -> None:
        super().__init__()
        with seeded_weights(seed):
            weight = torch.empty(entries, channels).uniform_(-1 / entries, 1 / entries)
        self.embedding = nn.Embedding(entries, channels, _weight=weight)

    def forward(self, residuals: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The nearest entry at every position."""
        batch, _, height, width = residuals.shape
        codes = self.embedding(self.nearest(to_vectors(residuals)))
        return codes.view(batch, height, width, -1).permute(0, 3, 1, 2).contiguous()

    def nearest(self, vectors: Float[Tensor, "n c"]) -> Int[Tensor, " n"]:
        """Index of the nearest entry (Euclidean) of every vector."""
        return match(vectors.detach(), self.embedding.weight.detach())[1]

    def loss(self, vectors: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
        """Pulls the nearest entries towards normal ``vectors``; 0 without any.

        As in the released code the value is 1.25 times the mean squared error, but the gradient
        that of 0.25 times.
        """
        codes = self.embedding(self.nearest(vectors))
        error = (codes - vectors.detach()).square().sum() / max(1, vectors.numel())
        return 0.25 * error + error.detach()

    @torch.no_grad()
    def revive(self, vectors: Float[Tensor, "n c"], generator: torch.Generator) -> int:
        """Move entries that are nearest to none of ``vectors`` onto random ones of these.

        Returns how many moved. Not in the released code, where entries move by the learning rate at
        most and most are never used.
        """
        if not len(vectors):
            return 0
        used = torch.bincount(self.nearest(vectors), minlength=self.embedding.num_embeddings) > 0
        dead = int((~used).sum())
        chosen = torch.randint(len(vectors), (dead,), generator=generator)
        self.embedding.weight[~used] = vectors[chosen.to(vectors.device)]
        return dead
