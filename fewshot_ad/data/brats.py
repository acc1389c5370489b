"""BraTS as few-shot anomaly detection uses it: slices of brains with and without a lesion."""

from typing import ClassVar

from fewshot_ad.data.folder import Folder
from fewshot_ad.data.published import SingleClass

__all__ = ["BraTS"]


class BraTS(SingleClass, Folder):
    """Slices of BraTS 2021 in the layout of MVTec AD: one class, ``brain``.

    This is the selection that ResAD (NeurIPS 2024) published its references for, another one than
    that of ``bmad``. Masks hold codes of tissue; all but zero is lesion.

    Raises:
        FewShotError: the root is absent or holds no ``train`` and ``test``.
    """

    name: str = "brats"
    title: ClassVar[str] = "BraTS"
    source: ClassVar[str] = "https://huggingface.co/datasets/xcyao00/resad-data"
    licence: ClassVar[str] = "the terms of BraTS 2021"
    layout: ClassVar[str] = (
        "train/good/*, test/good/*, test/DEFECT/*, ground_truth/DEFECT/*_mask.png"
    )
    known: ClassVar[tuple[str, ...]] = ("brain",)
    marks: ClassVar[tuple[str, ...]] = ("train", "test")
