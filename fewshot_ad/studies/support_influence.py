"""Which of the support images matters, for which query image, and would others have been better?

Leave-one-out: the scores without a support image, less those with it. Swap: the scores with another
train normal in its place, less those before. Both are taken for every query image. Besides, many
drawn supports are compared with each other and with one that is chosen by k-centre: the image
nearest to the mean of all train normals, then again and again the one furthest from those chosen
(Gonzalez 1985, https://doi.org/10.1016/0304-3975(85)90224-5), by pooled features and no labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot_ad.api import Dataset, FewShotError, Method, Sample, Support
from fewshot_ad.episodes import draw, permuted
from fewshot_ad.evaluation.identity import method_name
from fewshot_ad.evaluation.metrics import image_metrics
from fewshot_ad.evaluation.queries import Query
from fewshot_ad.evaluation.reading import read_images
from fewshot_ad.parts.map_methods import BackboneMethod

BATCH = 8
EVAL_SIZE = 256


@dataclass(frozen=True, eq=False)
class Effects:
    """What each support image does.

    Attributes:
        support, query: the images; effects are in their order.
        spares: what took the place of each support image in a swap.
        scores: of the query with the whole support.
        i_auroc: with the whole support.
        left_out, swapped: image scores after the change less ``scores``.
        left_out_i_auroc, swapped_i_auroc: I-AUROC after the change less ``i_auroc``.
    """

    support: tuple[Sample, ...]
    query: tuple[Sample, ...]
    spares: tuple[Sample, ...]
    scores: Float[np.ndarray, " q"]
    i_auroc: float
    left_out: Float[np.ndarray, "n q"]
    swapped: Float[np.ndarray, "n q"]
    left_out_i_auroc: Float[np.ndarray, " n"]
    swapped_i_auroc: Float[np.ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Choices:
    """Supports of one size beside each other.

    Attributes:
        drawn: supports that were drawn, by seed.
        drawn_i_auroc: I-AUROC with each of them.
        chosen: by k-centre; empty for a method without a backbone.
        chosen_i_auroc: I-AUROC with it.
    """

    drawn: tuple[tuple[Sample, ...], ...]
    drawn_i_auroc: Float[np.ndarray, " s"]
    chosen: tuple[Sample, ...]
    chosen_i_auroc: float | None

    @property
    def share_below(self) -> float | None:
        """Share of the drawn supports that the chosen one is better than; ties count half."""
        if self.chosen_i_auroc is None:
            return None
        below = self.drawn_i_auroc < self.chosen_i_auroc
        return float((below + 0.5 * (self.drawn_i_auroc == self.chosen_i_auroc)).mean())


class Trials:
    """One method on one query, with one support after another.

    Features of an image are computed once, so that a further support costs a fit and a search.
    """

    def __init__(
        self, method: Method, dataset: Dataset, target_class: str, query: Sequence[Sample]
    ) -> None:
        """Read the query.

        Raises:
            FewShotError: the query lacks normal or anomalous images, or one cannot be read.
        """
        self.method = method
        self.dataset = dataset
        self.target_class = target_class
        self.query = Query(dataset, tuple(query), method.preprocess, EVAL_SIZE)
        if reason := image_metrics(self.query.is_anomalous * 1.0, self.query.is_anomalous).reasons:
            raise FewShotError(
                f"{dataset.name}/{target_class}: nothing can be ranked ({reason['i_auroc']}); "
                "choose a class whose test images are normal and anomalous"
            )

    def scores(self, support: Sequence[Sample]) -> Float[np.ndarray, " q"]:
        """Image scores of the query with a support."""
        images = read_images(self.dataset, support, self.method.preprocess)
        self.method.fit(Support(self.target_class, images))
        found = [self.method.predict(batch).image_score for batch in self.query.batches(BATCH)]
        return torch.cat(found).numpy()

    def i_auroc(self, scores: Float[np.ndarray, " q"]) -> float:
        """I-AUROC of some scores of the query."""
        found = image_metrics(scores, self.query.is_anomalous).i_auroc
        assert found is not None  # looked at in __init__
        return found


def effects(trials: Trials, support: Sequence[Sample], seed: int = 0) -> Effects:
    """Leave out and swap every support image in turn.

    Args:
        trials: method and query.
        support: the images to ask about.
        seed: of the draw of the spares.

    Raises:
        FewShotError: fewer support images than the method needs and one, or no other train normal
            to swap for.
    """
    support, least = tuple(support), trials.method.min_shots + 1
    if len(support) < least:
        raise FewShotError(
            f"{method_name(trials.method)} cannot do without one of {len(support)} support images; "
            f"give --shots {least} or more"
        )
    spares = _spares(trials, support, seed)
    whole = trials.scores(support)
    without = [trials.scores(support[:n] + support[n + 1 :]) for n in range(len(support))]
    swapped = [
        trials.scores((*support[:n], spare, *support[n + 1 :])) for n, spare in enumerate(spares)
    ]
    i_auroc = trials.i_auroc(whole)
    return Effects(
        support=support,
        query=trials.query.samples,
        spares=spares,
        scores=whole,
        i_auroc=i_auroc,
        left_out=np.stack(without) - whole,
        swapped=np.stack(swapped) - whole,
        left_out_i_auroc=np.array([trials.i_auroc(each) for each in without]) - i_auroc,
        swapped_i_auroc=np.array([trials.i_auroc(each) for each in swapped]) - i_auroc,
    )


def compare_choices(trials: Trials, shots: int, draws: int) -> Choices:
    """Drawn supports with the seeds from 0 on, beside one that is chosen.

    Raises:
        FewShotError: the class has fewer train normals than shots.
    """
    drawn = tuple(draw(trials.dataset, trials.target_class, seed, shots) for seed in range(draws))
    chosen: tuple[Sample, ...] = ()
    if isinstance(trials.method, BackboneMethod):
        normals = trials.dataset.train(trials.target_class)
        places = k_centre(_pooled(trials, trials.method, normals), shots)
        chosen = tuple(normals[place] for place in places)
    return Choices(
        drawn=drawn,
        drawn_i_auroc=np.array([trials.i_auroc(trials.scores(each)) for each in drawn]),
        chosen=chosen,
        chosen_i_auroc=trials.i_auroc(trials.scores(chosen)) if chosen else None,
    )


def influence_facts(found: Effects, choices: Choices | None = None) -> dict[str, Any]:
    """All of it as JSON takes it; images are told by their paths."""
    arrays = ("left_out", "swapped", "left_out_i_auroc", "swapped_i_auroc", "scores")
    facts: dict[str, Any] = {
        "i_auroc": found.i_auroc,
        "support": [sample.path for sample in found.support],
        "spares": [sample.path for sample in found.spares],
        "query": [sample.path for sample in found.query],
        **{name: getattr(found, name).tolist() for name in arrays},
    }
    if choices is None:
        return facts
    return facts | {
        "drawn": [[sample.path for sample in each] for each in choices.drawn],
        "drawn_i_auroc": choices.drawn_i_auroc.tolist(),
        "chosen": [sample.path for sample in choices.chosen],
        "chosen_i_auroc": choices.chosen_i_auroc,
        "share_below": choices.share_below,
    }


def k_centre(vectors: Float[np.ndarray, "n d"], count: int) -> Int[np.ndarray, " k"]:
    """Places of so many vectors: nearest to the mean first, then ever the furthest from those."""
    first = int(np.linalg.norm(vectors - vectors.mean(axis=0), axis=1).argmin())
    places = [first]
    distance = np.linalg.norm(vectors - vectors[first], axis=1)
    while len(places) < count:
        places.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(vectors - vectors[places[-1]], axis=1))
    return np.array(places)


def _spares(trials: Trials, support: Sequence[Sample], seed: int) -> tuple[Sample, ...]:
    """Another train normal for each support image, all different while there are enough."""
    normals = {sample.path: sample for sample in trials.dataset.train(trials.target_class)}
    others = normals.keys() - {sample.path for sample in support}
    if not others:
        raise FewShotError(
            f"all {len(normals)} train normals of {trials.target_class} are in the support: none "
            "is left to swap for; give fewer --shots"
        )
    order = permuted(others, trials.dataset.name, trials.target_class, seed, "spares")
    return tuple(normals[order[n % len(order)]] for n in range(len(support)))


def _pooled(
    trials: Trials, method: BackboneMethod, samples: Sequence[Sample]
) -> Float[np.ndarray, "n d"]:
    """The deepest features of every image, averaged over places."""
    rows: list[Tensor] = []
    for start in range(0, len(samples), BATCH):
        images = read_images(trials.dataset, samples[start : start + BATCH], method.preprocess)
        rows.append(method.features(images)[-1].mean(dim=(2, 3)).cpu())
    return torch.cat(rows).double().numpy()
