import errno
import gc
import os
import tempfile

import pytest
import torch
from painted import MeanColour, Painted

from fewshot_ad.api import FewShotError
from fewshot_ad.episodes import episodes
from fewshot_ad.evaluation import map_room
from fewshot_ad.evaluation.evaluator import evaluate
from fewshot_ad.evaluation.map_room import room_for_maps


@pytest.fixture
def in_files(monkeypatch, tmp_path):
    monkeypatch.setattr(map_room, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("has_fallocate", [True, False])
def test_a_file_holds_what_is_written(in_files, monkeypatch, has_fallocate):
    monkeypatch.setattr(map_room, "_CHUNK", 1000)
    if not has_fallocate:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    room, values = room_for_maps(5, 16), torch.randn(5, 16, 16)
    room[:] = values
    gc.collect()
    assert torch.equal(room, values)
    assert room.shape == (5, 16, 16)
    assert [*in_files.iterdir()] == []  # nameless


def test_outcomes_are_the_same(in_files, monkeypatch):
    def outcome():
        trials = episodes(Painted(), "plate", shots=(2,), seeds=(0,))
        return next(iter(evaluate(MeanColour(), Painted(), trials)))

    filed = outcome()
    monkeypatch.setattr(map_room, "IN_MEMORY", 2**30)
    held = outcome()
    assert filed.row.metrics() == held.row.metrics()
    assert torch.equal(filed.prediction.anomaly_map, held.prediction.anomaly_map)


def test_a_full_disk_is_told_before_anything_is_judged(in_files, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(FewShotError, match=r"maps of 5 images .*No space left.* TMPDIR"):
        room_for_maps(5, 16)
