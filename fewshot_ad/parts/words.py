"""A memory bank sorted into words, so that a search can be held to the words that fit (PNI).

PNI: Industrial Anomaly Detection using Position and Neighborhood Information. Bae, Lee, Kim. ICCV
2023. https://arxiv.org/abs/2211.12634
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from fewshot_ad.parts.memory_bank import greedy_coreset
from fewshot_ad.parts.search import nearest

QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class WordBank:
    """Rows, and words that are some of them; a row belongs to the word that is nearest to it.

    Attributes:
        rows: what queries are compared with.
        words: no two alike, each with a row at least.
        word_of_row: which word every row belongs to.
    """

    rows: Float[Tensor, "n c"]
    words: Float[Tensor, "w c"]
    word_of_row: Int[Tensor, " n"]

    def words_of(self, vectors: Float[Tensor, "m c"]) -> Int[Tensor, " m"]:
        """The nearest word of every vector."""
        return nearest(vectors, self.words)[1][:, 0]

    def nearest_permitted(
        self, queries: Float[Tensor, "q c"], *permissions: Bool[Tensor, "q w"]
    ) -> list[Float[Tensor, " q"]]:
        """Distance of every query to the nearest row of a word that is permitted to it.

        Args:
            queries: of one image; blocks are cut here, so that an image is judged alike alone.
            permissions: which words are permitted, one at least for every query; all are answered
                from one product of queries and rows.
        """
        squared = self.rows.square().sum(dim=1, keepdim=True)
        forbidden = [(~each).T.contiguous() for each in permissions]
        found: list[list[Tensor]] = [[] for _ in permissions]
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            here = slice(start, start + QUERIES_AT_ONCE)
            score = torch.addmm(squared, self.rows, queries[here].T, alpha=-2)  # |q-b|^2 - |q|^2
            for words, rows in zip(forbidden, found, strict=True):
                is_out = words[:, here].index_select(0, self.word_of_row)
                rows.append(score.masked_fill(is_out, torch.inf).min(dim=0).indices)
        nearest_rows = (self.rows[torch.cat(each)] for each in found)
        return [torch.linalg.vector_norm(queries - near, dim=1) for near in nearest_rows]


def sort_into_words(rows: Float[Tensor, "n c"], words: int, seed: int) -> WordBank:
    """Take at most so many rows that cover all of them as words."""
    chosen = greedy_coreset(rows, words, seed)
    label = nearest(rows, chosen)[1][:, 0]
    used, label = label.unique(return_inverse=True)  # of equal words, only the first has rows
    return WordBank(rows, chosen[used], label)


def words_around(words: Int[Tensor, "n h w"], count: int, window: int) -> Float[Tensor, "hw count"]:
    """How often each word occurs in a square around each position, as shares of all images."""
    images, height, width = words.shape
    places = torch.arange(height * width, device=words.device).view(height, width)
    cells = (words * (height * width) + places).flatten()
    histogram = cells.bincount(minlength=count * height * width).float() / images
    maps = histogram.view(1, count, height, width)
    shares = functional.avg_pool2d(maps, window, 1, window // 2, count_include_pad=False)
    return shares[0].flatten(1).T.contiguous()
