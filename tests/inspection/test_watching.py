"""A folder that a camera fills, with a clock and a camera of our own."""

import os

import numpy as np
import pytest
from PIL import Image

from fewshot_ad.api import FewShotError
from fewshot_ad.inspection.photos import Photo, Unreadable
from fewshot_ad.inspection.watching import Watch, watched


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watch(tmp_path, clock):
    return Watch(tmp_path, patience=1.0, clock=clock)


def shoot(path, value=7):
    Image.fromarray(np.full((6, 8, 3), value, np.uint8)).save(path)


def looks(watch, count, clock):
    """What so many looks find, half a second apart."""
    found = []
    for _ in range(count):
        found.append([*watch.look()])
        clock.now += 0.5
    return found


def test_a_photo_is_read_once_when_it_has_settled(watch, tmp_path, clock):
    shoot(tmp_path / "a.png")
    first, second, third = looks(watch, 3, clock)
    assert (first, third) == ([], [])
    assert [(type(one), one.name) for one in second] == [(Photo, str(tmp_path / "a.png"))]


def test_a_half_written_photo_is_waited_for(watch, tmp_path, clock):
    shoot(tmp_path / "whole.png")
    content = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "whole.png").unlink()
    (tmp_path / "b.png").write_bytes(content[:40])
    assert looks(watch, 2, clock) == [[], []]  # it has settled, and cannot be read yet
    (tmp_path / "b.png").write_bytes(content)
    assert [type(one) for found in looks(watch, 3, clock) for one in found] == [Photo]


def test_a_photo_that_never_becomes_whole_is_given_up_and_named(watch, tmp_path, clock):
    (tmp_path / "b.png").write_bytes(b"\x89PNG half")
    found = [one for look in looks(watch, 6, clock) for one in look]
    assert [type(one) for one in found] == [Unreadable]
    assert "b.png" in found[0].reason


def test_a_photo_that_is_replaced_is_read_again(watch, tmp_path, clock):
    shoot(tmp_path / "a.png", 1)
    looks(watch, 2, clock)
    shoot(tmp_path / "a.png", 2)
    os.utime(tmp_path / "a.png", ns=(5, 5))
    (found,) = [one for look in looks(watch, 3, clock) for one in look]
    assert (found.pixels == 2).all()


def test_other_files_and_hidden_ones_are_left_alone(watch, tmp_path, clock):
    (tmp_path / "log.txt").write_text("x")
    shoot(tmp_path / ".upload.png")
    (tmp_path / "sub.png").mkdir()
    assert looks(watch, 3, clock) == [[], [], []]


def test_photos_come_in_natural_order(watch, tmp_path, clock):
    for number in (10, 9, 1):
        shoot(tmp_path / f"{number}.png")
    names = [one.name.rpartition("/")[2] for look in looks(watch, 2, clock) for one in look]
    assert names == ["1.png", "9.png", "10.png"]


def test_watching_ends_when_nothing_comes(watch, tmp_path, clock):
    shoot(tmp_path / "a.png")
    groups = [*watched(watch, idle=3.0, sleep=clock.sleep)]
    assert [len(group) for group in groups] == [1]
    assert 3.0 <= clock.now < 4.0


def test_a_folder_that_goes_is_an_error(tmp_path, clock):
    with pytest.raises(FewShotError, match="cannot look into"):
        [*Watch(tmp_path / "gone", clock=clock).look()]
