"""PNI: the nearest normal patch, among those that are normal here.

PNI: Industrial Anomaly Detection using Position and Neighborhood Information. Bae, Lee, Kim. ICCV
2023. https://arxiv.org/abs/2211.12634

Patches of the support are sorted into words, a coreset of theirs. Which words are normal at a
position is known in two ways: by a histogram of the words that support images have around it, and
by a network that tells the word of a patch from its neighbours. A patch is as anomalous as the
nearest bank patch of a permitted word is far, in the mean over the two ways.

Deviations: no refinement network, which learns from made-up defects; the distance itself in place
of the negative logarithm of 0.99 exp(-0.99 distance), which grows as it does; the network is not
learned from fewer than ``network_shots`` images, which show every position too rarely (until then
nothing is trained), and is smaller, with layer norm in place of batch norm and dropout and with
neighbours in fewer channels; the bank is kept whole below 20,000 patches; every pixel counts for
the image score. ``PAPER`` holds the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fewshot_ad.api import FewShotError, Preprocess, Support, Track
from fewshot_ad.parts.embedding import Embedding
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.maps import to_vectors
from fewshot_ad.parts.memory_bank import greedy_coreset
from fewshot_ad.parts.parameters import COUNT, POSITIVE, POSITIVE_SHARE, Odd, check_parameters
from fewshot_ad.parts.patches import extract_patches
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of
from fewshot_ad.parts.surroundings import Shape, Surroundings, learn_surroundings
from fewshot_ad.parts.words import WordBank, sort_into_words, words_around

__all__ = ["PNI"]


@dataclass(frozen=True)
class _Model:
    """What is normal, and where: ``here`` says which words each position of the grid permits."""

    bank: WordBank
    grid: tuple[int, int]
    here: Bool[Tensor, "hw w"]
    surroundings: Surroundings | None

    @property
    def rare(self) -> float:
        """A word that is no more probable is not permitted; half of what chance would give."""
        return 0.5 / len(self.bank.words)


@dataclass(kw_only=True, eq=False)
class PNI(FeatureMethod):
    """Distance to the nearest patch whose word is permitted; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is wide_resnet101_2.
        levels: which feature maps are joined, the first gives the grid.
        neighbourhood: side of the square over which features are averaged.
        coreset_ratio: share of the bank that is kept.
        coreset_above: banks with fewer patches are kept whole.
        words: into how many words patches are sorted, at most.
        window: side of the square around a position from which words and neighbours are taken.
        network_shots: with so many support images or more, the network is learned too.
        channels: of the neighbours that the network sees, by a fixed projection; None for all.
        hidden, layers: width of the network and how many hidden layers it has.
        steps, batch_size, learning_rate: of the network's training.
        temperature: of the softmax over the network's logits.
        blur: sigma of the Gaussian over the map, in pixels; the paper's 8 is for 480 pixels.
    """

    track: ClassVar[Track] = "training_free"
    recipe: ClassVar[int] = 2
    PAPER: ClassVar[Mapping[str, Any]] = {
        "neighbourhood": 5,
        "coreset_ratio": 0.01,
        "coreset_above": 1,
        "channels": None,
        "hidden": 2048,
        "layers": 10,
        "batch_size": 2048,
        "blur": 8.0,
        "preprocess": Preprocess(size=480),
    }
    neighbourhood: int = 3
    coreset_ratio: float = 0.1
    coreset_above: int = 20_000
    words: int = 2048
    window: int = 9
    network_shots: int = 16
    channels: int | None = 32
    hidden: int = 256
    layers: int = 2
    steps: int = 500
    batch_size: int = 256
    learning_rate: float = 1e-3
    temperature: float = 2.0
    model_: _Model | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        counts = ("words", "network_shots", "channels", "hidden", "layers", "steps", "batch_size")
        check_parameters(
            self,
            neighbourhood=Odd(),
            window=Odd(),
            coreset_ratio=POSITIVE_SHARE,
            coreset_above=COUNT,
            temperature=POSITIVE,
            **dict.fromkeys(counts, COUNT),
        )

    def fit(self, support: Support) -> "PNI":
        """Sort the patches of the support into words, and learn where which word is normal.

        Raises:
            FewShotError: training diverges.
        """
        check_support(support, self.min_shots)
        maps = self._patches(support.images)
        rows = to_vectors(maps)
        bank = sort_into_words(self._thinned(rows), self.words, self.seed)
        grid, labels, count = (maps.shape[2], maps.shape[3]), bank.words_of(rows), len(bank.words)
        shares = words_around(labels.view(-1, *grid), count, self.window)
        surroundings = None
        if len(maps) >= self.network_shots and self.window > 1:
            shape = Shape(window=self.window, hidden=self.hidden, layers=self.layers)
            surroundings = learn_surroundings(
                self._narrow(maps), labels, shape, budget_of(self, self.batch_size, cosine=True)
            )
        self.model_ = _Model(bank, grid, shares > 0.5 / count, surroundings)
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Distance to the nearest permitted patch, by position and by neighbours.

        Raises:
            FewShotError: the image has another size than the support.
        """
        assert self.model_ is not None
        return Judgement([self._distances(image, self.model_)[None]])

    def _patches(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d h2 w2"]:
        return extract_patches(self.features, images, self.neighbourhood)

    def _narrow(self, maps: Float[Tensor, "b d h w"]) -> Float[Tensor, "b e h w"]:
        return Embedding(channels=self.channels)([maps])[0]

    def _thinned(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
        if len(rows) <= self.coreset_above:
            return rows
        return greedy_coreset(rows, round(self.coreset_ratio * len(rows)), self.seed)

    def _distances(self, image: Float[Tensor, "1 3 h w"], model: _Model) -> Float[Tensor, "h2 w2"]:
        maps = self._patches(image)
        if maps.shape[2:] != model.grid:
            raise FewShotError(
                f"the images have features on a grid of {list(maps.shape[2:])} and the support "
                f"had {list(model.grid)}: PNI needs images of the size of the support"
            )
        permissions = [model.here]
        if model.surroundings is not None:
            logits = model.surroundings.logits(self._narrow(maps))
            permissions.append((logits / self.temperature).softmax(dim=1) > model.rare)
        distances = model.bank.nearest_permitted(to_vectors(maps), *permissions)
        return torch.stack(distances).mean(dim=0).view(model.grid)
