"""Any folder of images in the layout of MVTec AD."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from fewshot_ad.api import FewShotError, Sample
from fewshot_ad.data.files import ImageFiles
from fewshot_ad.data.trees import below, by_stem, images, mask_of, named, subfolders, visible

__all__ = ["Folder"]

NORMAL_NAMES = frozenset({"good", "ok", "normal"})


class Folder(ImageFiles):
    """Any folder in the layout of MVTec AD, of one class or of several.

    Classes are folders, or the root is one: it then holds ``train`` and ``test`` itself. Normal
    images lie in ``train/good`` (or directly in ``train``) and ``test/good``, every other folder of
    ``test`` is a kind of defect; ``ok`` and ``normal`` are read as ``good``. Masks are optional and
    lie in ``ground_truth/DEFECT``, paired by the stem of the image, plain or with ``_mask``,
    ``_label`` or ``_GT``. Case does not matter for these names, nor does the kind of image file.

    Datasets that differ in a few names say so in the attributes.

    Attributes:
        test_split: the folder of a class that holds the test images.
        images_in: the folder of every kind that holds its images, where there is such a one.
        masks_in: where the masks of a defect lie in the folder of a class.

    Raises:
        FewShotError: the root is absent or holds no class.
    """

    name: str = "folder"
    layout: ClassVar[str] = (
        "CLASS/train/good/*, CLASS/test/good/*, CLASS/test/DEFECT/*, CLASS/ground_truth/DEFECT/*"
    )
    test_split: ClassVar[str] = "test"
    images_in: ClassVar[str] = ""
    masks_in: ClassVar[tuple[str, ...]] = ("ground_truth/{defect}",)

    def _find_classes(self) -> dict[str, Path]:
        """Folders with a ``train`` or ``test``, and empty ones, so that these are told of."""
        if self._has_splits(self.root):
            return {self.root.resolve().name: self.root}
        found = [f for f in subfolders(self.root) if self._has_splits(f) or not visible(f)]
        if not any(self._has_splits(folder) for folder in found):
            raise FewShotError(f"{self.root} holds no class; expected {self.layout}")
        return {folder.name: folder for folder in found}

    def _has_splits(self, folder: Path) -> bool:
        return bool(named(folder, {"train", self.test_split}))

    def _train(self, folder: Path, class_name: str) -> Iterator[Sample]:
        splits = below(folder, "train")
        normal = [kind for split in splits for kind in named(split, NORMAL_NAMES)]
        return self._normals(normal or splits, class_name)

    def _test(self, folder: Path, class_name: str) -> Iterator[Sample]:
        for kind in (
            kind for split in below(folder, self.test_split) for kind in subfolders(split)
        ):
            if kind.name.lower() in NORMAL_NAMES:
                yield from self._normals([kind], class_name)
            elif kind.name.lower() != "ground_truth":  # which some keep beside the test images
                yield from self._anomalies(kind, class_name, self._masks(folder, kind.name))

    def _normals(self, kinds: Iterable[Path], class_name: str) -> Iterator[Sample]:
        for file in (file for kind in kinds for file in self._images(kind)):
            yield self._normal(file, class_name)

    def _anomalies(
        self, kind: Path, class_name: str, masks: Mapping[str, Path]
    ) -> Iterator[Sample]:
        for file in self._images(kind):
            yield self._anomaly(file, class_name, kind.name, mask_of(file.stem, masks))

    def _images(self, kind: Path) -> list[Path]:
        places = below(kind, self.images_in) if self.images_in else []
        return [file for place in places or [kind] for file in images(place)]

    def _masks(self, folder: Path, defect: str) -> dict[str, Path]:
        """Masks of a defect by the stems of their files."""
        paths = (path.format(defect=defect) for path in self.masks_in)
        return by_stem(
            file for path in paths for kind in below(folder, path) for file in images(kind)
        )
