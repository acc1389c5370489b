"""An inspector as one ONNX graph: square images in, image scores and anomaly maps out.

The graph holds all of ``predict``: normalisation, backbone, bank or Gaussians, map, blur and score,
for any number of images. What stays outside is the resize of a photo to the square, which
``photos.square_of`` does (Pillow, bicubic, antialiased). Threshold and scale travel as metadata.
Before the file is kept, onnxruntime judges normals and altered copies of them, and every score and
map must be that of the method. OpenVINO reads the file as it is.
"""

import importlib
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fewshot_ad.api import FewShotError, Method
from fewshot_ad.evaluation.identity import method_name
from fewshot_ad.evaluation.writing import errors_in_one_line
from fewshot_ad.inspection.choosing import stacked
from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.methods.padim import PaDiM
from fewshot_ad.methods.patchcore import PatchCore
from fewshot_ad.methods.residual_distance import ResidualDistance
from fewshot_ad.parts.calibration import altered_copies
from fewshot_ad.parts.embedding import average_neighbourhood
from fewshot_ad.parts.map_methods import FeatureMethod
from fewshot_ad.parts.maps import fuse, gaussian_blur, to_vectors
from fewshot_ad.parts.patches import join_levels

TOLERANCE = 1e-4
CHECKED = 8
EXTRA = 'pip install "fewshot-ad[export]"'

Levels = list[Tensor]


class Parity(NamedTuple):
    """How far the graph is from the method, over all checked images.

    Attributes:
        images: how many were checked.
        score, map: the greatest differences, as a share of the greatest score and map value.
    """

    images: int
    score: float
    map: float


class PredictPath(nn.Module):
    """Images [b 3 s s] of RGB in [0, 1] to image scores [b] and anomaly maps [b s s]."""

    mean: Tensor
    std: Tensor
    fusion: Literal["mean", "sum"]

    def __init__(self, method: FeatureMethod, head: nn.Module) -> None:
        super().__init__()
        backbone = method.features.backbone
        self.network, self.chosen = backbone.network, backbone.maps
        self.head, self.blur, self.fusion = head, method.blur, method.fusion
        frame = method.preprocess
        self.side = frame.size
        self.register_buffer("mean", torch.tensor(frame.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(frame.std).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """All of ``predict``."""
        maps = self.network((images - self.mean) / self.std)
        judged = self.head([maps[index] for index in self.chosen])
        fused = fuse(judged, (self.side, self.side), self.fusion)
        anomaly_map = gaussian_blur(fused, self.blur)
        return anomaly_map.flatten(1).amax(dim=1), anomaly_map


class NearestDistance(nn.Module):
    """Distance of every position to the nearest row of a bank.

    A matrix product finds the row; the distance to it is taken anew, since what a product leaves of
    a small distance between long vectors is mostly rounding.
    """

    bank: Tensor
    half_squares: Tensor

    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        rows = bank.float().cpu().clone()
        self.register_buffer("bank", rows)
        self.register_buffer("half_squares", 0.5 * rows.square().sum(dim=1))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps [b c h w] to distances [b h w]."""
        rows = maps.permute(0, 2, 3, 1)
        nearest = (self.half_squares - rows @ self.bank.T).argmin(dim=-1)
        return (rows - self.bank[nearest]).square().sum(dim=-1).sqrt()


class PatchCoreHead(nn.Module):
    """The bank of PatchCore."""

    def __init__(self, method: PatchCore) -> None:
        super().__init__()
        if method.n_neighbors != 1:
            raise FewShotError("a re-weighted image score cannot be exported: set n_neighbors=1")
        assert method.bank_ is not None
        self.side, self.unit_length = method.neighbourhood, method.unit_length
        self.nearest = NearestDistance(method.bank_)

    def forward(self, levels: Levels) -> Levels:
        """One map of distances."""
        patches = join_levels([average_neighbourhood(maps, self.side) for maps in levels])
        patches = functional.normalize(patches, dim=1) if self.unit_length else patches
        return [self.nearest(patches)]


class ResidualHead(nn.Module):
    """The banks of the plain residual distance, one for each level."""

    def __init__(self, method: ResidualDistance) -> None:
        super().__init__()
        if method.channels is not None:
            raise FewShotError("projected channels cannot be exported: set channels=none")
        assert method.support_ is not None
        self.side, self.unit_length = method.neighbourhood, method.unit_length
        self.nearest = nn.ModuleList(NearestDistance(to_vectors(one)) for one in method.support_)

    def forward(self, levels: Levels) -> Levels:
        """A map of distances for each level."""
        averaged = [average_neighbourhood(maps, self.side) for maps in levels]
        if self.unit_length:
            averaged = [functional.normalize(maps, dim=1) for maps in averaged]
        return [find(maps) for find, maps in zip(self.nearest, averaged, strict=True)]


class GaussianHead(nn.Module):
    """The Gaussians of PaDiM, in double precision as there."""

    kept: Tensor
    mean: Tensor
    whitening: Tensor
    directions: Tensor

    def __init__(self, method: PaDiM) -> None:
        super().__init__()
        if method.reduction != "random":
            raise FewShotError("a rotation of channels cannot be exported: set reduction=random")
        assert method.gaussians_ is not None
        found = method.gaussians_
        width = sum(method.features.backbone.channels)
        generator = torch.Generator().manual_seed(method.seed)
        kept = torch.randperm(width, generator=generator)[: method.channels].sort().values
        unit = torch.eye(len(found.whitener)).to(found.whitener)
        whitening = torch.linalg.solve_triangular(found.whitener, unit, upper=False).mT
        self.grid = found.grid
        self.register_buffer("kept", kept)
        self.register_buffer("mean", found.mean.cpu().clone())
        self.register_buffer("whitening", whitening.cpu().contiguous())
        self.register_buffer("directions", found.directions.cpu().mT.contiguous())

    def forward(self, levels: Levels) -> Levels:
        """One map of Mahalanobis distances."""
        maps = join_levels(levels)[:, self.kept]
        away = maps.flatten(2).mT.double() - self.mean
        white = away @ self.whitening
        along = (white[:, :, None] @ self.directions)[:, :, 0]
        squared = white.square().sum(dim=2) - along.square().sum(dim=2)
        return [squared.clamp(min=0).sqrt().float().unflatten(1, self.grid)]


HEADS: dict[type[Method], Callable[[Any], nn.Module]] = {
    PatchCore: PatchCoreHead,
    PaDiM: GaussianHead,
    ResidualDistance: ResidualHead,
}


def predict_path(method: Method) -> PredictPath:
    """All of a fitted method's ``predict`` as one module on the CPU.

    Raises:
        FewShotError: the method, or a parameter of it, cannot be exported.
    """
    head = HEADS.get(type(method))
    if head is None or not isinstance(method, FeatureMethod):
        names = "patchcore, padim and residual_distance"
        raise FewShotError(f"{method_name(method)} cannot be exported; {names} can")
    return PredictPath(method, head(method)).eval().requires_grad_(requires_grad=False).cpu()


def export_onnx(inspector: Inspector, path: Path) -> Parity:
    """Write the graph, once onnxruntime has judged as the method does.

    Raises:
        FewShotError: onnx is not installed, the method cannot be exported, the graph judges
            otherwise, or the file cannot be written.
    """
    onnx, runtime = _library("onnx"), _library("onnxruntime")
    _library("onnxscript")
    method = inspector.method
    graph = _traced(predict_path(method), onnx)
    onnx.helper.set_model_props(graph, {"fewshot_ad": json.dumps(_about(inspector))})
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    with errors_in_one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_bytes(graph.SerializeToString())
            parity = _parity(runtime.InferenceSession(str(temporary), providers=[CPU]), inspector)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return parity


CPU = "CPUExecutionProvider"


def _traced(module: PredictPath, onnx: Any) -> Any:
    """The module as a graph for any number of images."""
    example = torch.rand(2, 3, module.side, module.side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own parts
        program = torch.onnx.export(
            module,
            (example,),
            input_names=["images"],
            output_names=["image_score", "anomaly_map"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _parity(session: Any, inspector: Inspector) -> Parity:
    """Differences on some normals and altered copies of them, alone and together.

    Raises:
        FewShotError: they are greater than ``TOLERANCE``.
    """
    method = inspector.method
    normals = stacked(inspector.squares[:CHECKED], method)
    copies = altered_copies(normals, 1, torch.Generator().manual_seed(0))
    images = torch.cat([normals, copies])
    wanted = method.predict(images)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in _moments(method))
    colours = (images * std + mean).numpy()
    parts = [colours[:1], colours[1:]]
    found = [session.run(None, {"images": part}) for part in parts if len(part)]
    score, anomaly_map = (np.concatenate(each) for each in zip(*found, strict=True))
    parity = Parity(
        len(images),
        _difference(score, wanted.image_score.numpy()),
        _difference(anomaly_map, wanted.anomaly_map.numpy()),
    )
    if not max(parity.score, parity.map) <= TOLERANCE:
        raise FewShotError(
            f"the exported graph judges otherwise: scores differ by {parity.score:.1g} and maps by "
            f"{parity.map:.1g} of their greatest value, {TOLERANCE:g} is allowed; nothing is kept"
        )
    return parity


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / max(float(np.abs(wanted).max()), 1e-12))


def _moments(method: Method) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return method.preprocess.mean, method.preprocess.std


def _about(inspector: Inspector) -> dict[str, Any]:
    """What decides, beside the graph."""
    return {
        "part": inspector.name,
        "method": method_name(inspector.method),
        "threshold": inspector.threshold,
        "scale": inspector.scale._asdict(),
        "promise": inspector.promise,
        "input": "RGB in [0, 1], [b 3 s s], resized as the geometry says (bicubic, antialiased)",
        "size": inspector.method.preprocess.size,
        "geometry": inspector.method.preprocess.geometry,
    }


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FewShotError(f"export needs {name}, which is not installed: {EXTRA}") from error
