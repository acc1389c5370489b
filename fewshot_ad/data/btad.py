"""BTAD: three industrial products."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool

from fewshot_ad.data.folder import Folder
from fewshot_ad.data.published import Published
from fewshot_ad.image_files import read_image

__all__ = ["BTAD"]

_SOFT_EDGE = 128


class BTAD(Published, Folder):
    """BTAD (Mishra et al., ISIE 2021): products ``01``, ``02`` and ``03``, of several sizes.

    Normal images lie in ``ok``, anomalous ones in ``ko``. Images and masks are BMP or PNG, and not
    always both the same. The edges of masks are soft: what is brighter than 128 of 255 counts.

    Raises:
        FewShotError: the root is absent or holds none of the 3 classes.
    """

    name: str = "btad"
    title: ClassVar[str] = "BTAD"
    source: ClassVar[str] = "https://avires.dimi.uniud.it/papers/btad/btad.zip"
    licence: ClassVar[str] = "CC BY-SA 4.0"
    layout: ClassVar[str] = (
        "CLASS/train/ok/*, CLASS/test/ok/*, CLASS/test/ko/*, CLASS/ground_truth/ko/*"
    )
    expected: ClassVar[Mapping[str, tuple[int, int]]] = {
        "01": (400, 70),
        "02": (399, 230),
        "03": (1000, 441),
    }

    def _marked(self, path: Path, size_hw: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        return read_image(path).max(axis=2) > _SOFT_EDGE
