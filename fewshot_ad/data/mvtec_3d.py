"""MVTec 3D-AD, of which only the colour images are read."""

from typing import ClassVar

from fewshot_ad.data.folder import Folder
from fewshot_ad.data.published import NON_COMMERCIAL, Published

__all__ = ["MVTec3D"]


class MVTec3D(Published, Folder):
    """MVTec 3D-AD (Bergmann et al., VISAPP 2022): colour images of 10 foods and products.

    Every kind of image has a folder ``rgb`` and one of range images, which are left alone; so is
    the split ``validation``. Masks lie beside the test images in ``gt``, for normal ones too, and
    hold any codes; all but zero count. ``combined`` is a kind of defect.

    Raises:
        FewShotError: the root is absent or holds none of the 10 classes.
    """

    name: str = "mvtec_3d"
    title: ClassVar[str] = "MVTec 3D-AD"
    source: ClassVar[str] = "https://www.mvtec.com/company/research/datasets/mvtec-3d-ad"
    licence: ClassVar[str] = NON_COMMERCIAL
    layout: ClassVar[str] = (
        "CLASS/train/good/rgb/*, CLASS/test/good/rgb/*, CLASS/test/DEFECT/rgb/*, "
        "CLASS/test/DEFECT/gt/*"
    )
    images_in: ClassVar[str] = "rgb"
    masks_in: ClassVar[tuple[str, ...]] = ("test/{defect}/gt",)
    aside: ClassVar[tuple[str, ...]] = ("validation/*", "*/xyz/*", "test/good/gt/*")
    total: ClassVar[tuple[int, int] | None] = (2656, 1197)
    known: ClassVar[tuple[str, ...]] = (
        "bagel",
        "cable_gland",
        "carrot",
        "cookie",
        "dowel",
        "foam",
        "peach",
        "potato",
        "rope",
        "tire",
    )
