"""MVTec LOCO AD: logical anomalies, where each part is flawless, beside structural ones."""

import hashlib
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool

from fewshot_ad.api import FewShotError
from fewshot_ad.data.files import MaskSizeError
from fewshot_ad.data.folder import Folder
from fewshot_ad.data.published import NON_COMMERCIAL, Published
from fewshot_ad.data.trees import below, images, subfolders

__all__ = ["MVTecLOCO"]


class MVTecLOCO(Published, Folder):
    """MVTec LOCO AD (Bergmann et al., IJCV 2022): 5 classes with two kinds of anomalies.

    An image has a folder of masks, one per anomaly, whose grey value is the code of its type: they
    are united, whatever the code. One merged mask per image, as some pass the dataset on, is read
    too. Saturation (sPRO) is not computed. ``validation`` is left alone. Results of
    ``logical_anomalies`` and ``structural_anomalies`` want to be told apart.

    Raises:
        FewShotError: the root is absent or holds none of the 5 classes.
    """

    name: str = "mvtec_loco"
    title: ClassVar[str] = "MVTec LOCO AD"
    source: ClassVar[str] = "https://www.mvtec.com/company/research/datasets/mvtec-loco"
    licence: ClassVar[str] = NON_COMMERCIAL
    layout: ClassVar[str] = (
        "CLASS/train/good/*, CLASS/test/good/*, CLASS/test/logical_anomalies/NNN.png, "
        "CLASS/ground_truth/logical_anomalies/NNN/*.png, and so for structural_anomalies"
    )
    aside: ClassVar[tuple[str, ...]] = ("validation/*", "ground_truth/*/*/*")
    known: ClassVar[tuple[str, ...]] = (
        "breakfast_box",
        "juice_bottle",
        "pushpins",
        "screw_bag",
        "splicing_connectors",
    )

    def _masks(self, folder: Path, defect: str) -> dict[str, Path]:
        """Folders of masks by their names, which are the stems of the images."""
        kinds = below(folder, f"ground_truth/{defect}")
        return super()._masks(folder, defect) | {
            place.name: place for kind in kinds for place in subfolders(kind)
        }

    def _marked(self, path: Path, size_hw: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        if not path.is_dir():
            return super()._marked(path, size_hw)
        masks = [super(MVTecLOCO, self)._marked(file, size_hw) for file in images(path)]
        if not masks:
            raise FewShotError(f"{path} holds no masks; unpack {self.title} once more")
        if len({mask.shape for mask in masks}) > 1:
            raise MaskSizeError(f"the masks in {path} are of several sizes; unpack them once more")
        return np.logical_or.reduce(masks)

    def _digest_of(self, path: Path) -> str:
        if not path.is_dir():
            return super()._digest_of(path)
        parts = [super(MVTecLOCO, self)._digest_of(file) for file in images(path)]
        return hashlib.sha256("".join(parts).encode()).hexdigest()
