"""The same network on less time: in bfloat16, or compiled by OpenVINO.

The way is the first part of a backbone's name, so that rows and caches tell it:
``bf16:resnet18``, ``openvino:resnet18`` (float32), ``openvino-bf16:resnet18``. Features in bfloat16
are a few percent off; what that does to scores is in docs/speed.md.
"""

import warnings
from importlib import import_module
from threading import Lock
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot_ad.api import FewShotError

Precision = Literal["bf16", "openvino", "openvino-bf16"]

Images = Float[Tensor, "b 3 h w"]


def split_precision(name: str) -> tuple[Precision | None, str]:
    """The precision that a name of a backbone begins with, if any, and the rest of the name."""
    first, _, rest = name.partition(":")
    for precision in get_args(Precision):
        if first == precision and rest:
            return precision, rest
    return None, name


def quickened(network: nn.Module, precision: Precision, device: str) -> nn.Module:
    """A network that maps images to the same levels, nearly, and quicker.

    Raises:
        FewShotError: OpenVINO is not installed, cannot compile the network, or the device is none
            of its own.
    """
    if precision == "bf16":
        return HalfPrecision(network)
    if device != "cpu":
        raise FewShotError(
            f"OpenVINO runs here on the CPU alone, not on {device}: give --device cpu"
        )
    return OpenVino(network, "bf16" if precision == "openvino-bf16" else "f32")


class HalfPrecision(nn.Module):
    """Products in bfloat16, channels last; sums, norms and results stay as exact as they can."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        for module in self.network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.to(torch.bfloat16)  # once, and not at every call

    def forward(self, images: Images) -> Any:
        """The levels, in bfloat16 or float32."""
        with torch.autocast(images.device.type, torch.bfloat16):
            return self.network(images.contiguous(memory_format=torch.channels_last))


class OpenVino(nn.Module):
    """A network compiled by OpenVINO, once for every shape of images that it meets."""

    def __init__(self, network: nn.Module, hint: Literal["f32", "bf16"]) -> None:
        super().__init__()
        self.network = network
        self._hint = hint
        self._library = _openvino()
        self._compiled: dict[torch.Size, Any] = {}
        self._lock = Lock()

    def forward(self, images: Images) -> list[Tensor]:
        """The levels."""
        with self._lock:
            if images.shape not in self._compiled:
                self._compiled[images.shape] = self._compile(images)
            compiled = self._compiled[images.shape]
        found = compiled.infer_new_request([images.contiguous().numpy()])
        return [torch.tensor(level) for level in found.values()]

    def _compile(self, images: Images) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # tracing tells of shapes that become constants
                traced = torch.jit.trace(self.network, images, strict=False, check_trace=False)
                model = self._library.convert_model(traced, input=list(images.shape))
            settings = {
                "INFERENCE_PRECISION_HINT": self._hint,
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "NUM_STREAMS": 1,
            }
            return self._library.Core().compile_model(model, "CPU", settings)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise FewShotError(
                f"OpenVINO cannot compile this network ({reason}): use it without openvino"
            ) from error


def _openvino() -> Any:
    try:
        return import_module("openvino")
    except ImportError:
        raise FewShotError(
            "OpenVINO is not installed: pip install openvino, or name the backbone without it"
        ) from None
