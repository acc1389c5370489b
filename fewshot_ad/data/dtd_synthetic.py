"""DTD-Synthetic: textures with defects that were drawn into them."""

from pathlib import Path
from typing import ClassVar

from fewshot_ad.data.folder import Folder
from fewshot_ad.data.published import Published

__all__ = ["DTDSynthetic"]


class DTDSynthetic(Published, Folder):
    """DTD-Synthetic (Aota et al., WACV 2023): 12 textures of DTD, defects of one kind, ``bad``.

    One of the twelve tells the dataset; every other folder beside it is then a class too.

    Raises:
        FewShotError: the root is absent or holds none of the 12 classes.
    """

    name: str = "dtd_synthetic"
    title: ClassVar[str] = "DTD-Synthetic"
    source: ClassVar[str] = (
        "https://drive.google.com/drive/folders/10OyPzvI3H6llCZBxKxFlKWt1Pw1tkMK1"
    )
    licence: ClassVar[str] = "none stated by its authors; DTD itself is for research"
    known: ClassVar[tuple[str, ...]] = (
        "Blotchy_099",
        "Fibrous_183",
        "Marbled_078",
        "Matted_069",
        "Mesh_114",
        "Perforated_037",
        "Stratified_154",
        "Woven_001",
        "Woven_068",
        "Woven_104",
        "Woven_125",
        "Woven_127",
    )

    def _find_classes(self) -> dict[str, Path]:
        super()._find_classes()
        return Folder._find_classes(self)
