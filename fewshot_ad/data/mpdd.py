"""MPDD: painted metal parts, photographed at many angles and before changing backgrounds."""

from typing import ClassVar

from fewshot_ad.data.folder import Folder
from fewshot_ad.data.published import Published

__all__ = ["MPDD"]


class MPDD(Published, Folder):
    """MPDD (Jezek et al., ICUMT 2021): 6 kinds of metal parts, 888 normal images in train.

    The test split has 176 normal and 282 anomalous images. Masks hold any values; all but zero
    count.

    Raises:
        FewShotError: the root is absent or holds none of the 6 classes.
    """

    name: str = "mpdd"
    title: ClassVar[str] = "MPDD"
    source: ClassVar[str] = "https://github.com/stepanje/MPDD"
    licence: ClassVar[str] = "none stated by its authors; cite their paper"
    total: ClassVar[tuple[int, int] | None] = (888, 458)
    known: ClassVar[tuple[str, ...]] = (
        "bracket_black",
        "bracket_brown",
        "bracket_white",
        "connector",
        "metal_plate",
        "tubes",
    )
