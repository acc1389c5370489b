"""MVTec AD 2: harder scenes, large images, and light that changes."""

from typing import ClassVar

from fewshot_ad.data.folder import Folder
from fewshot_ad.data.published import NON_COMMERCIAL, Published

__all__ = ["MVTecAD2"]


class MVTecAD2(Published, Folder):
    """MVTec AD 2 (Heckler-Kram et al., 2025): 8 classes; its public test split is the test here.

    The two private test splits have no labels, for a server judges them; they are left alone, and
    so is ``validation``, which has only normal images. The stem of an image ends in its light, as
    in ``000_regular`` and ``000_overexposed``. Images are several megapixels and far from square.

    Raises:
        FewShotError: the root is absent or holds none of the 8 classes.
    """

    name: str = "mvtec_ad_2"
    title: ClassVar[str] = "MVTec AD 2"
    source: ClassVar[str] = "https://www.mvtec.com/company/research/datasets/mvtec-ad-2"
    licence: ClassVar[str] = NON_COMMERCIAL
    layout: ClassVar[str] = (
        "CLASS/train/good/*, CLASS/test_public/good/*, CLASS/test_public/bad/*, "
        "CLASS/test_public/ground_truth/bad/*_mask.png"
    )
    test_split: ClassVar[str] = "test_public"
    masks_in: ClassVar[tuple[str, ...]] = ("test_public/ground_truth/{defect}",)
    aside: ClassVar[tuple[str, ...]] = ("validation/*", "test_private/*", "test_private_mixed/*")
    known: ClassVar[tuple[str, ...]] = (
        "can",
        "fabric",
        "fruit_jelly",
        "rice",
        "sheet_metal",
        "vial",
        "wallplugs",
        "walnuts",
    )
