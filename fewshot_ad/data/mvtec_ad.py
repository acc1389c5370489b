"""MVTec AD: 15 products and textures, the set that few-shot anomaly detection is measured on."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from fewshot_ad.api import FewShotError
from fewshot_ad.data.folder import Folder

__all__ = ["MVTecAD"]


class MVTecAD(Folder):
    """MVTec AD (Bergmann et al., CVPR 2019): 3629 normal images in train, 1725 in test.

    Not every class must be there. ``grid``, ``screw`` and ``zipper`` are grey; masks are 0 or 255.

    Raises:
        FewShotError: the root is absent or holds none of the 15 classes.
    """

    name: str = "mvtec_ad"
    source: ClassVar[str] = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
    licence: ClassVar[str] = "CC BY-NC-SA 4.0 (no commercial use)"
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

    def _checked_root(self, root: Path | str | None) -> Path:
        try:
            return super()._checked_root(root)
        except FewShotError as error:
            raise FewShotError(f"{error}; {self.download()}") from error

    @classmethod
    def download(cls) -> str:
        """Where the images come from, in one clause."""
        return f"download {cls.download_size} from {cls.source} and unpack it there"

    def _find_classes(self) -> dict[str, Path]:
        found = {name: self.root / name for name in self.expected if (self.root / name).is_dir()}
        if found:
            return found
        below = [f.name for f in sorted(self.root.iterdir()) if (f / "bottle").is_dir()]
        hint = (
            f"did you mean {self.root / below[0]}?"
            if below
            else f"for other classes use folder:{self.root}"
        )
        raise FewShotError(
            f"{self.root} holds none of the 15 classes of MVTec AD (bottle, ... zipper); {hint}"
        )
