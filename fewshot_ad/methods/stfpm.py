"""STFPM: a student knows a backbone's features on normal images, and on these alone.

Student-Teacher Feature Pyramid Matching for Anomaly Detection. Wang, Han, Ding, Hong, Huang. BMVC
2021. https://arxiv.org/abs/2103.04257

A student with random first weights learns to say of normal images what a frozen backbone says of
them, on several levels. On a defect, the two disagree. The product of their distances over levels
is the map, so that a position counts where all levels disagree.

Deviations. The student is a compact network that suits any backbone and has norms over the channels
of one image; ``student=copy`` is the paper's. It starts at the mean features of the support, which
the first steps would only find again. Adam with clipped gradients in place of a fast stochastic
gradient, which diverges with other backbones than the paper's. Altered copies of the support are
learned from besides, and no part of it is held out to choose an epoch. Distances have a floor and
the root of their product is taken, so that one level without any disagreement does not silence all
others. The map is blurred. One image is soon known with all its copies; with few, the student is
wrong about normal variation that it never saw. ``PAPER`` holds the paper's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot_ad.api import Support, Track
from fewshot_ad.parts.cosines import cosine_distances, cosine_loss
from fewshot_ad.parts.map_methods import FeatureMethod, Judgement
from fewshot_ad.parts.maps import upsample_maps
from fewshot_ad.parts.parameters import check_parameters
from fewshot_ad.parts.students import RedrawnCopy, Student, start_from_means, support_views
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.support_training import budget_of, train_on_support

__all__ = ["STFPM"]

LEAST_DISTANCE = 1e-4


@dataclass(kw_only=True, eq=False)
class STFPM(FeatureMethod):
    """Disagreement of student and teacher; see the module for the paper.

    Attributes:
        backbone: name, file or factory of a feature extractor; the paper's is resnet18.
        levels: feature maps that are learned.
        student: ``compact``, a small network for any backbone, or, as in the paper, a ``copy`` of
            the backbone's architecture with new weights.
        width: channels of a compact student at the first level, doubled at each further one.
        support_views: the support and altered copies of it, so many at least.
        steps, batch_size: of training; a batch is of views.
        learning_rate, weight_decay: of Adam.
    """

    track: ClassVar[Track] = "target_tuned"
    levels: tuple[int, ...] = (1, 2, 3)
    student: Literal["compact", "copy"] = "compact"
    width: int = 16
    support_views: int = 32
    steps: int = 300
    batch_size: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    student_: nn.Module | None = field(default=None, init=False, repr=False)

    PAPER: ClassVar[Mapping[str, Any]] = {
        "student": "copy",
        "support_views": 1,
        "steps": 700,  # 100 epochs of 7 batches
        "batch_size": 32,
        "blur": 0.0,
    }

    def __post_init__(self) -> None:
        check_parameters(self)

    def fit(self, support: Support) -> "STFPM":
        """Train the student.

        Raises:
            FewShotError: the loss is no longer finite; says at which step.
        """
        check_support(support, self.min_shots)
        views = support_views(support.images, self.support_views, self.seed)
        taught = self.features(views)
        views = views.to(taught[0].device)
        student = self._new_student(taught).to(views.device)

        def loss(rows: Int[Tensor, " k"], _: torch.Generator) -> Float[Tensor, ""]:
            """Half the squared distance of unit vectors, mean over positions (section 3.2)."""
            some = [maps[rows] for maps in taught]
            return cosine_loss(some, student(views[rows], some))

        train_on_support(
            student, loss, len(views), budget_of(self, self.batch_size, clip_norm=1.0), "STFPM"
        )
        self.student_ = student
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Geometric mean over levels of the distances (the paper's product orders the same)."""
        assert self.student_ is not None
        taught = self.features(image)
        found = cosine_distances(taught, self.student_(image.to(taught[0].device), taught))
        size = image.shape[-2], image.shape[-1]
        logs = [upsample_maps(maps, size).clamp(min=LEAST_DISTANCE).log() for maps in found]
        return Judgement([torch.stack(logs).mean(dim=0).exp()])

    def _new_student(self, taught: list[Tensor]) -> nn.Module:
        if self.student == "copy":
            return RedrawnCopy(self.backbone, self.levels, self.seed)
        student = Student(self.features.backbone, self.width, self.seed)
        start_from_means(student, taught)
        return student
