"""MVTec AD: 15 products and textures, the set that few-shot anomaly detection is measured on."""

from collections.abc import Mapping
from typing import ClassVar

from fewshot_ad.data.folder import Folder
from fewshot_ad.data.published import NON_COMMERCIAL, Published

__all__ = ["MVTecAD"]


class MVTecAD(Published, Folder):
    """MVTec AD (Bergmann et al., CVPR 2019): 3629 normal images in train, 1725 in test.

    Not every class must be there. ``grid``, ``screw`` and ``zipper`` are grey; masks are 0 or 255.

    Raises:
        FewShotError: the root is absent or holds none of the 15 classes.
    """

    name: str = "mvtec_ad"
    title: ClassVar[str] = "MVTec AD"
    source: ClassVar[str] = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
    licence: ClassVar[str] = NON_COMMERCIAL
    download_size: ClassVar[str] = "4.9 GB"
    expected: ClassVar[Mapping[str, tuple[int, int]]] = {
        "bottle": (209, 83),
        "cable": (224, 150),
        "capsule": (219, 132),
        "carpet": (280, 117),
        "grid": (264, 78),
        "hazelnut": (391, 110),
        "leather": (245, 124),
        "metal_nut": (220, 115),
        "pill": (267, 167),
        "screw": (320, 160),
        "tile": (230, 117),
        "toothbrush": (60, 42),
        "transistor": (213, 100),
        "wood": (247, 79),
        "zipper": (240, 151),
    }
