"""Real-IAD: 30 small parts, each seen by five cameras, 150 thousand images in all."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from fewshot_ad.api import FewShotError, Sample
from fewshot_ad.data.published import NON_COMMERCIAL, Published
from fewshot_ad.data.trees import subfolders

__all__ = ["RealIAD"]

_SIZES = ("1024", "512", "256", "raw")
_LISTS = ("realiad_jsons/realiad_jsons", "realiad_jsons")
_KEYS = ("image_path", "mask_path", "anomaly_class")


class RealIAD(Published):
    """Real-IAD (Wang et al., CVPR 2024): 30 classes, the published split of all five views.

    The root holds the images, ``realiad_1024`` or of another size, and the lists in
    ``realiad_jsons``. Of several sizes the largest that is prepared is read, 1024; give
    ``ROOT/realiad_512`` for another. Every view is an image of its own here, where the paper also
    judges objects by the highest score of their views. Masks lie beside the anomalous images.

    Raises:
        FewShotError: the root is absent, or holds no images or no lists.
    """

    name: str = "real_iad"
    title: ClassVar[str] = "Real-IAD"
    source: ClassVar[str] = "https://huggingface.co/datasets/REAL-IAD/Real-IAD"
    licence: ClassVar[str] = NON_COMMERCIAL
    layout: ClassVar[str] = (
        "realiad_1024/CLASS/OK/S0001/*.jpg, realiad_1024/CLASS/NG/DEFECT/S0001/*.jpg and *.png, "
        "realiad_jsons/realiad_jsons/CLASS.json"
    )

    def _checked_root(self, root: Path | str | None) -> Path:
        """The folder of images of one size: what is written down of a run serves every size."""
        path = super()._checked_root(root)
        sizes = [path / f"realiad_{size}" for size in _SIZES]
        return next((folder for folder in sizes if folder.is_dir()), path)

    @classmethod
    def _classes_in(cls, root: Path) -> dict[str, Path]:
        return {folder.name: folder for folder in subfolders(root) if _list_of(folder)}

    def _missing(self) -> str:
        return f"no class of {self.title} that has a list"

    def _train(self, folder: Path, class_name: str) -> Iterator[Sample]:
        samples = self._listed(folder, class_name, "train")
        return (sample for sample in samples if not sample.is_anomalous)

    def _test(self, folder: Path, class_name: str) -> Iterator[Sample]:
        return self._listed(folder, class_name, "test")

    def _listed(self, folder: Path, class_name: str, split: str) -> Iterator[Sample]:
        path = _list_of(folder) or folder
        for entry in _entries(path, split):
            try:
                image, mask, defect = (entry[key] for key in _KEYS)
            except (KeyError, TypeError):
                raise FewShotError(
                    f"{path}: {entry!r} in {split!r} lacks {', '.join(_KEYS[:2])} or {_KEYS[2]}; "
                    f"{self.download()}"
                ) from None
            if defect == "OK":
                yield Sample(f"{class_name}/{image}", class_name, is_anomalous=False)
            else:
                mask_path = f"{class_name}/{mask}" if mask else None
                yield Sample(f"{class_name}/{image}", class_name, True, mask_path, str(defect))


def _list_of(folder: Path) -> Path | None:
    """The list of a class, whose folder lies in that of a size beside the folder of lists."""
    places = (folder.parent.parent / name / f"{folder.name}.json" for name in _LISTS)
    return next((path for path in places if path.is_file()), None)


def _entries(path: Path, split: str) -> list[Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))[split]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FewShotError(
            f"{path} is no list of {split!r} ({error}); unpack the lists of Real-IAD once more"
        ) from error
    return entries if isinstance(entries, list) else []
