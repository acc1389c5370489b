"""Meta-training on residuals: what ResAD and ResAD++ share, so that their files hold the papers.

A method of this kind builds one ``LevelModel`` per feature level. Here the model is shown residuals
of known classes for a budget of steps, the steps that serve held-out known classes best are kept,
and each level's score is put on the scale it has on known normal images. Nothing looks at a target
before ``fit``, or at another query image in ``predict``.
"""

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from fewshot_ad.api import (
    FewShotError,
    KnownClasses,
    MetaTrained,
    NotFittedError,
    Prediction,
    Support,
    Track,
)
from fewshot_ad.parts.checkpoint_files import KnownRecord, read_checkpoint, write_checkpoint
from fewshot_ad.parts.constraintors import ConstraintorKind
from fewshot_ad.parts.data_parallel import n_processes
from fewshot_ad.parts.embedding import Embedding
from fewshot_ad.parts.known_residuals import known_residuals
from fewshot_ad.parts.level_models import LevelModel, LevelModels
from fewshot_ad.parts.map_methods import BackboneMethod
from fewshot_ad.parts.maps import finish, image_score, no_prediction
from fewshot_ad.parts.meta_training import Course
from fewshot_ad.parts.official import load_weights
from fewshot_ad.parts.parameters import (
    COUNT,
    NOT_NEGATIVE,
    SHARE,
    Between,
    MultipleOf,
    Odd,
    check_parameters,
)
from fewshot_ad.parts.residual_stage import ResidualForm, ResidualStage
from fewshot_ad.parts.residuals import Metric
from fewshot_ad.parts.support import check_support

PLACE = {"weights_dir", "device"}  # where a method runs; not what it is


@dataclass(kw_only=True, eq=False)
class ResidualLearner(BackboneMethod, MetaTrained):
    """Fields and stages that residual-learning methods have in common.

    ``BEFORE`` holds what a later parameter stands for in files that do not know it.

    Attributes:
        metric: how a query position is matched with a support position.
        form: signed or squared residuals.
        neighbourhood, channels, unit_length: what happens to features before matching, see
            ``parts.embedding.Embedding``.
        known_shots: support images of a known class in meta-training.
        known_supports: how many supports are drawn of each known class.
        steps: budget of meta-training.
        batch_size: images per step, half of them anomalous.
        held_out: share of the known classes that selects among the steps; 0 keeps the last step.
        learned_share: share of the learned score in the sum with the plain residual distance, a
            prior that no training takes away; None lets the held-out known classes choose, and
            stands for a quarter where these are fewer than three.
        constraintor: ``conv`` is the papers'; ``least_squares`` is a convolution at the minimum of
            ResAD's loss with squared norms, which takes no training; ``identity`` trains from one
            that changes nothing; ``none``.
        constrained_channels: at most so many come out of ``least_squares``, those in which the most
            passes; what the flow costs hangs on them. None for all.
        flow_blocks: coupling blocks of the flow; 0 scores by the length of constrained residuals.
        position_dims: width of the position code that conditions the flow, 0 for none.
        noise: added to what the flow learns from, in units of known normals; 0 as in the papers.
        boundary_weight: weight of the boundary loss (lambda in ResAD's eq. 6).
        boundary_quantile: share of normals that lie below the boundary (beta of BGAD).
        margin: distance between the boundaries of normals and anomalies (tau).
        warm_up: share of the steps before the boundary loss sets in.
        vectors_per_step: positions of each level that the flow sees in a step.
        learning_rate, weight_decay: of Adam.
        blur: sigma of the Gaussian over the map, in pixels.
    """

    track: ClassVar[Track] = "meta_trained"
    recipe: ClassVar[int] = 1
    shares_batches: ClassVar[bool] = True  # among processes, see ``parts.data_parallel``
    BEFORE: ClassVar[Mapping[str, Any]] = {"constrained_channels": None}
    metric: Metric = "euclidean"
    form: ResidualForm = "signed"
    neighbourhood: int = 1
    channels: int | None = 256
    unit_length: bool = True
    known_shots: int = 4
    known_supports: int = 1
    steps: int = 100
    batch_size: int = 8
    held_out: float = 0.2
    learned_share: float | None = None
    constraintor: ConstraintorKind = "identity"
    constrained_channels: int | None = None
    flow_blocks: int = 8
    position_dims: int = 0
    noise: float = 1.0
    boundary_weight: float = 1.0
    boundary_quantile: float = 0.05
    margin: float = 0.1
    warm_up: float = 0.1
    vectors_per_step: int = 2048
    learning_rate: float = 3e-4
    weight_decay: float = 0.0
    blur: float = 4.0
    models_: LevelModels | None = field(default=None, init=False, repr=False)
    known_: KnownRecord | None = field(default=None, init=False, repr=False)
    support_: list[Tensor] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(
            self,
            neighbourhood=Odd(),
            channels=Between(2),  # a coupling block splits them in two
            constrained_channels=Between(2),
            known_shots=COUNT,
            known_supports=COUNT,
            held_out=SHARE,
            learned_share=SHARE,
            flow_blocks=NOT_NEGATIVE,
            position_dims=MultipleOf(4),
            noise=NOT_NEGATIVE,
            boundary_quantile=Between(0, 0.99),
            warm_up=SHARE,
        )

    @abstractmethod
    def build_level(self, level: int, channels: int) -> LevelModel:
        """The untrained model of one level."""

    def meta_train(self, known: KnownClasses, *, resume: Path | None = None) -> "ResidualLearner":
        """Learn from labelled known classes.

        Args:
            known: the classes.
            resume: where the state is kept during the run, and found again after a kill.

        Raises:
            FewShotError: a known class lacks train normals or labelled images, or no image of the
                teaching classes is normal.
        """
        residuals = known_residuals(
            known,
            self.preprocess,
            self._stage,
            shots=self.known_shots,
            supports=self.known_supports,
            seed=self.seed,
        )
        course = Course(
            models=self._build(),
            residuals=residuals,
            to_map=partial(self._map, size=(self.preprocess.size, self.preprocess.size)),
            held_out=self.held_out,
            learned_share=self.learned_share,
            steps=self.steps,
            batch_size=self.batch_size,
            seed=self.seed,
        )
        seen = [self._identity(), known.names, sorted(known.digests), n_processes()]
        course.run(resume, identity=json.dumps(seen))
        self.models_, self.support_ = course.models, None
        self.known_ = KnownRecord(
            known.names, known.digests, course.judges, course.selected_step, n_processes()
        )
        return self

    def fit(self, support: Support) -> "ResidualLearner":
        """Remember the features of the support."""
        check_support(support, self.min_shots)
        if self.models_ is None:
            raise NotFittedError(
                f"{type(self).__name__} is not meta-trained: call meta_train or load first"
            )
        self.support_ = self._stage.embed(support.images)
        return self

    def predict(self, images: Float[Tensor, "b 3 h w"]) -> Prediction:
        """Score each image by its residuals to the support."""
        if self.models_ is None or self.support_ is None:
            raise NotFittedError(
                f"{type(self).__name__} has no support yet: call fit(support) first"
            )
        if not len(images):
            return no_prediction(images)
        size = images.shape[-2], images.shape[-1]
        scores = (self._score(self.models_, image[None], self.support_) for image in images)
        anomaly_map = torch.cat([self._map(levels, size) for levels in scores]).cpu()
        return Prediction(image_score(anomaly_map), anomaly_map)

    def save(self, path: Path) -> None:
        """Write models and the record of the known classes."""
        if self.models_ is None or self.known_ is None:
            raise NotFittedError(
                f"{type(self).__name__} is not meta-trained: there is nothing to save"
            )
        write_checkpoint(path, self._identity(), self.known_, self.models_.state_dict())

    def load(self, path: Path) -> "ResidualLearner":
        """Read what ``save`` wrote.

        Raises:
            FewShotError: as ``parts.checkpoint_files.read_checkpoint``, or a weight is missing.
        """
        known, state = read_checkpoint(path, self._identity())
        models = self._build()
        try:
            load_weights(models, state)
        except FewShotError as error:
            raise FewShotError(f"{path} is damaged, train again ({error})") from error
        self.models_, self.known_, self.support_ = models.eval(), known, None
        return self

    @property
    def _stage(self) -> ResidualStage:
        embedding = Embedding(self.neighbourhood, self.channels, self.unit_length)
        return ResidualStage(self.features, embedding, self.metric, self.form)

    def _score(
        self, models: LevelModels, image: Float[Tensor, "1 3 h w"], support: list[Tensor]
    ) -> list[Tensor]:
        return models.scores(self._stage.subtract(self._stage.embed(image), support))

    def _map(self, levels: list[Tensor], size: tuple[int, int]) -> Float[Tensor, "b h w"]:
        return finish(levels, size, self.blur)

    def _build(self) -> LevelModels:
        stage = self._stage
        levels = [self.build_level(number, width) for number, width in enumerate(stage.widths)]
        return LevelModels(levels, self.form).to(stage.features.backbone.device)

    def _identity(self) -> dict[str, Any]:
        """What a checkpoint must agree with: everything but where the method runs."""
        params = {name: value for name, value in self.params().items() if name not in PLACE}
        return {
            "method": type(self).__name__,
            "recipe": self.recipe,
            "weights_digest": self.weights_digest,
            "params": params,
        }
