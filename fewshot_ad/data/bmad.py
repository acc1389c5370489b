"""BMAD: medical images, of which those are read whose lesions are outlined."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from fewshot_ad.data.folder import Folder
from fewshot_ad.data.published import Published
from fewshot_ad.data.trees import subfolders

__all__ = ["BMAD"]

_FOLDERS = {
    "brain": ("brain",),
    "liver": ("liver",),
    "retina": ("resc", "retina_resc", "retina"),
}


class BMAD(Published, Folder):
    """BMAD (Bao et al., CVPR Workshops 2024): ``brain``, ``liver`` and ``retina``.

    Their folders are called ``Brain``, ``Liver`` and ``RESC`` or ``Retina_RESC``. Anomalous images
    lie in ``Ungood/img``, their masks in ``Ungood/label`` or ``Ungood/anomaly_mask``, with codes of
    which all but zero count. ``valid``, which holds anomalies too, is left alone. The three sets of
    BMAD without masks are not read.

    Raises:
        FewShotError: the root is absent or holds none of the 3 classes.
    """

    name: str = "bmad"
    title: ClassVar[str] = "BMAD"
    source: ClassVar[str] = "https://github.com/DorisBao/BMAD"
    licence: ClassVar[str] = "those of its sources (BraTS 2021; BTCV and LiTS; RESC), see there"
    layout: ClassVar[str] = (
        "CLASS/train/good/img/*, CLASS/test/good/img/*, CLASS/test/Ungood/img/*, "
        "CLASS/test/Ungood/label/* with CLASS one of Brain, Liver, RESC"
    )
    images_in: ClassVar[str] = "img"
    masks_in: ClassVar[tuple[str, ...]] = ("test/{defect}/label", "test/{defect}/anomaly_mask")
    aside: ClassVar[tuple[str, ...]] = ("valid/*", "test/good/label/*", "test/good/anomaly_mask/*")
    expected: ClassVar[Mapping[str, tuple[int, int]]] = {
        "brain": (7500, 3715),
        "liver": (1542, 1493),
        "retina": (4297, 1805),
    }

    @classmethod
    def _classes_in(cls, root: Path) -> dict[str, Path]:
        places = {folder.name.lower(): folder for folder in subfolders(root)}
        return {
            name: places[called]
            for name, calls in _FOLDERS.items()
            for called in calls
            if called in places
        }
