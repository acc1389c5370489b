"""All of a method's ``predict`` as one module: square images in, image scores and maps out.

It holds normalisation, backbone, bank or flow, map, blur and score, for any number of images. What
stays outside is the resize of a photo to the square, which ``photos.square_of`` does (Pillow,
bicubic, antialiased).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_ad.api import FewShotError, Method
from fewshot_ad.inspection.graph_heads import head_of
from fewshot_ad.inspection.graph_parts import copied
from fewshot_ad.parts.map_methods import FeatureMethod
from fewshot_ad.parts.maps import finish
from fewshot_ad.parts.precision import split_precision
from fewshot_ad.parts.residual_learning import ResidualLearner


class PredictPath(nn.Module):
    """Images of RGB in [0, 1] to image scores and anomaly maps.

    Args:
        method: fitted.
        head: what it does with features.
    """

    mean: Tensor
    std: Tensor
    fusion: Literal["mean", "sum"]

    def __init__(self, method: FeatureMethod | ResidualLearner, head: nn.Module) -> None:
        super().__init__()
        backbone, frame = method.features.backbone, method.preprocess
        self.network, self.chosen = copied(backbone.network), backbone.maps
        self.head, self.side = head, frame.size
        self.blur = method.blur
        self.fusion = method.fusion if isinstance(method, FeatureMethod) else "mean"
        self.register_buffer("mean", torch.tensor(frame.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(frame.std).view(1, 3, 1, 1))

    def forward(
        self, images: Float[Tensor, "b 3 s s"]
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b s s"]]:
        """All of ``predict``."""
        maps = self.network((images - self.mean) / self.std)
        judged = self.head([maps[index] for index in self.chosen])
        anomaly_map = finish(judged, (self.side, self.side), self.blur, self.fusion)
        return anomaly_map.flatten(1).amax(dim=1), anomaly_map


def predict_path(method: Method) -> PredictPath:
    """All of a fitted method's ``predict`` on the CPU; the method is left as it is.

    Raises:
        FewShotError: the method, or a parameter of it, cannot be exported.
    """
    head = head_of(method)
    assert isinstance(method, FeatureMethod | ResidualLearner)
    precision, plain = split_precision(method.backbone)
    if precision is not None:
        raise FewShotError(
            f"a backbone in another precision cannot be exported: fit with {plain}, not "
            f"{method.backbone}; --int8 makes a graph quicker"
        )
    return PredictPath(method, head).eval()
