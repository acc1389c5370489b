"""Any model of anomalib as a method: ``--method anomalib:Padim``.

Anomalib: A Deep Learning Library for Anomaly Detection. Akcay, Ameln, Vaidya, Lakshmanan, Ahuja,
Genc. ICIP 2022. https://arxiv.org/abs/2202.08341, code:
https://github.com/open-edge-platform/anomalib

The model is trained by anomalib's own engine on the support, for a budget of steps and without a
validation split, so that no threshold and no scale is taken from anywhere; raw scores and maps come
back. It needs the extra ``fewshot-ad[anomalib]``.

Images keep our geometry; of the model's own pre-processing only the normalisation is kept. Weights
of timm networks come from our folders, never from the network. A model without a map has its score
everywhere.
"""

import json
import logging
import os
import warnings
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar
from unittest.mock import patch

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fewshot_ad.api import FewShotError, Support, Track
from fewshot_ad.assets import unknown_name
from fewshot_ad.parts.backbones import chosen_device
from fewshot_ad.parts.map_methods import Judgement, MapMethod
from fewshot_ad.parts.parameters import COUNT, NOT_NEGATIVE, check_parameters
from fewshot_ad.parts.support import check_support
from fewshot_ad.parts.timm_networks import absent_weights, fill_network, locate_weights

__all__ = ["AnomalibModel"]

OFF = dict.fromkeys(("post_processor", "evaluator", "visualizer"), False)


@dataclass(kw_only=True, eq=False)
class AnomalibModel(MapMethod):
    """A model of anomalib by the name of its class; see the module.

    Attributes:
        model: name of a class in ``anomalib.models``.
        backbone: of the model, where it takes one; None for its own.
        weights_dir: folder with weights of timm backbones.
        arguments: further arguments of the class, as a JSON object.
        steps: of training at most; models that only collect features stop after one epoch.
        batch_size: images per step.
    """

    track: ClassVar[Track] = "target_tuned"
    model: str = "Padim"
    backbone: str | None = None
    weights_dir: str | None = None
    arguments: str = "{}"
    steps: int = 100
    batch_size: int = 8
    blur: float = 0.0
    network_: nn.Module | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_parameters(self, steps=COUNT, batch_size=COUNT, blur=NOT_NEGATIVE)
        self._arguments()

    @property
    def method_name(self) -> str:
        """What ``--method`` takes."""
        return f"anomalib:{self.model}"

    def fit(self, support: Support) -> "AnomalibModel":
        """Train the model on the support.

        Raises:
            FewShotError: anomalib is not here, does not know the model, or fails to train it.
        """
        check_support(support, self.min_shots)
        images = self._unnormalised(support.images)
        with TemporaryDirectory() as scratch, _silence():
            kind = self._kind()
            with _apart(Path(scratch)), _timm_offline(self.weights_dir):
                network = self._built(kind, (images.shape[-2], images.shape[-1]))
                self._train(network, images, scratch)
        self.network_ = network.eval().requires_grad_(requires_grad=False)
        return self

    def judge(self, image: Float[Tensor, "1 3 h w"]) -> Judgement:
        """Raw map and score of the model."""
        assert self.network_ is not None
        found = self.network_(self._unnormalised(image).to(chosen_device(self.device)))
        score = found.pred_score.flatten()[0].float()
        if found.anomaly_map is None:
            return Judgement([score.expand(1, *image.shape[2:])], score)
        return Judgement([found.anomaly_map.flatten(0, -3).float()], score)

    def _arguments(self) -> dict[str, Any]:
        try:
            arguments = json.loads(self.arguments)
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            raise FewShotError(
                f'arguments are {self.arguments}: expected a JSON object, as {{"n_features": 50}}'
            )
        return arguments | ({} if self.backbone is None else {"backbone": self.backbone})

    def _kind(self) -> Any:
        try:
            models = import_module("anomalib.models")
        except ImportError as error:
            raise FewShotError(
                f"{self.method_name} needs anomalib, which is not here ({error}): "
                'pip install "fewshot-ad[anomalib]"'
            ) from error
        if not hasattr(models, self.model):
            raise unknown_name("model of anomalib", self.model, getattr(models, "__all__", ()))
        return getattr(models, self.model)

    def _built(self, kind: Any, size: tuple[int, int]) -> Any:
        """The untrained model; its pre-processing only normalises images of our size."""
        try:
            torch.manual_seed(self.seed)
            pre_processor = kind.configure_pre_processor(image_size=size)
            return kind(**self._arguments(), pre_processor=pre_processor, **OFF)
        except FewShotError:
            raise
        except Exception as error:  # another library can raise anything
            raise self._failed("cannot be made", error) from error

    def _train(self, network: Any, images: Float[Tensor, "n 3 h w"], scratch: str) -> None:
        engine = import_module("anomalib.engine").Engine(
            logger=False,
            accelerator="cpu" if chosen_device(self.device) == "cpu" else "auto",
            devices=1,
            default_root_dir=scratch,
            max_steps=self.steps,
            max_epochs=-1,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        try:
            engine.fit(network, train_dataloaders=self._loader(images))
        except Exception as error:  # another library can raise anything
            raise self._failed("cannot be trained", error) from error
        network.to(chosen_device(self.device))

    def _loader(self, images: Float[Tensor, "n 3 h w"]) -> DataLoader[Any]:
        """The support in batches, shuffled by our seed; none is dropped."""
        data = import_module("anomalib.data")
        normal = torch.tensor(0)
        items = [data.ImageItem(image=image, gt_label=normal) for image in images]
        return DataLoader(
            items,  # pyright: ignore[reportArgumentType]
            self.batch_size,
            shuffle=True,
            generator=torch.Generator().manual_seed(self.seed),
            collate_fn=data.ImageBatch.collate,
        )

    def _failed(self, what: str, error: Exception) -> FewShotError:
        said = " ".join(str(error).split())[:300]
        return FewShotError(f"{self.method_name} {what}: {type(error).__name__}: {said}")

    def _unnormalised(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Values in [0, 1], which is what anomalib's pre-processing begins with."""
        mean, deviation = (
            torch.tensor(each).view(3, 1, 1).to(images)
            for each in (self.preprocess.mean, self.preprocess.std)
        )
        return (images * deviation + mean).clamp(0, 1)


@contextmanager
def _silence() -> Generator[None]:
    """No word of another library on the terminal; its errors are told by their exceptions."""
    before = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        Path(os.devnull).open("w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(before)


@contextmanager
def _apart(scratch: Path) -> Generator[None]:
    """What another library does to the working folder and to randomness ends with the block."""
    before = Path.cwd()
    with import_module("lightning.pytorch.utilities.seed").isolate_rng():
        os.chdir(scratch)
        try:
            yield
        finally:
            os.chdir(before)


@contextmanager
def _timm_offline(weights_dir: str | None) -> Generator[None]:
    """Pretrained networks of timm get their weights from our folders."""
    with patch("timm.create_model", partial(_create, timm.create_model, weights_dir)):
        yield


def _create(
    create: Any, weights_dir: str | None, model_name: str, pretrained: bool = False, **options: Any
) -> nn.Module:
    network = create(model_name, pretrained=False, **options)
    if pretrained:
        weights = locate_weights(model_name, None if weights_dir is None else Path(weights_dir))
        if weights is None:
            raise absent_weights(model_name)
        fill_network(network, model_name.partition(".")[0], weights.path)
    return network
