"""What published datasets have beside images: a source, a licence, and a tree to be known by."""

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from fewshot_ad.api import FewShotError
from fewshot_ad.data.files import ImageFiles
from fewshot_ad.data.trees import natural, subfolders, visible

__all__ = ["NON_COMMERCIAL", "Published", "SingleClass"]

NON_COMMERCIAL = "CC BY-NC-SA 4.0 (no commercial use)"


class Published(ImageFiles):
    """A dataset that others published; put it before the layout among the bases of a class.

    Not every class must be there.

    Attributes:
        title: its name in writing.
        source: where it is to be had.
        licence: under which terms.
        download_size: of what is to be had there, where that is known.
        known: its classes; those of ``expected`` if not given.
        total: images in train and test of all classes together, where the classes are not known
            one by one.

    Raises:
        FewShotError: the root is absent, or its tree is that of something else.
    """

    title: ClassVar[str]
    source: ClassVar[str]
    licence: ClassVar[str]
    download_size: ClassVar[str] = ""
    known: ClassVar[tuple[str, ...]] = ()
    total: ClassVar[tuple[int, int] | None] = None

    @classmethod
    def known_classes(cls) -> tuple[str, ...]:
        """Names of all classes of the dataset, be they there or not."""
        return cls.known or tuple(cls.expected)

    @classmethod
    def download(cls) -> str:
        """Where the images come from, in one clause."""
        what = cls.download_size or "it"
        return f"download {what} from {cls.source} and unpack it there"

    @classmethod
    def _classes_in(cls, root: Path) -> dict[str, Path]:
        """The classes that lie in a folder; none if it is not the root of this dataset."""
        places = {folder.name: folder for folder in subfolders(root)}
        return {name: places[name] for name in cls.known_classes() if name in places}

    def _checked_root(self, root: Path | str | None) -> Path:
        try:
            return super()._checked_root(root)
        except FewShotError as error:
            raise FewShotError(f"{error}; {self.download()}") from error

    def _find_classes(self) -> dict[str, Path]:
        found = self._classes_in(self.root)
        if found:
            return found
        raise FewShotError(
            f"{self.root} holds {_few(entry.name for entry in visible(self.root))} and "
            f"{self._missing()}, expected as {self.layout}; {self._way_out()}"
        )

    def _missing(self) -> str:
        names = self.known_classes()
        few = names if len(names) < 4 else (f"{names[0]}, ... {names[-1]}",)
        return f"none of the {len(names)} classes of {self.title} ({', '.join(few)})"

    def _way_out(self) -> str:
        """The root one folder down or up if it lies there; else another dataset, or the source."""
        near = [*subfolders(self.root), self.root.resolve().parent]
        root = next((place for place in near if self._is_root(place)), None)
        if root:
            return f"did you mean {root}?"
        return f"for classes of your own use folder:{self.root}, for {self.title} {self.download()}"

    @classmethod
    def _is_root(cls, folder: Path) -> bool:
        try:
            return bool(cls._classes_in(folder))
        except FewShotError:  # a neighbour that may not be looked into
            return False


class SingleClass(Published):
    """A published dataset of one class, whose root is the folder of that class.

    Attributes:
        marks: folders and files of which one at least lies in its root.
    """

    marks: ClassVar[tuple[str, ...]]

    @classmethod
    def _classes_in(cls, root: Path) -> dict[str, Path]:
        is_root = {entry.name for entry in visible(root)} & {*cls.marks}
        return {name: root for name in cls.known_classes() if is_root}

    def _missing(self) -> str:
        return f"nothing of {self.title}"


def _few(names: Iterable[str]) -> str:
    """The first three of some names."""
    listed = sorted(names, key=natural)
    return ", ".join([*listed[:3], *(["..."] if len(listed) > 3 else [])]) or "nothing"
