import errno
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewshot_ad.api import FewShotError
from fewshot_ad.parts import feature_store
from fewshot_ad.parts.backbones import load_backbone
from fewshot_ad.parts.feature_cache import FeatureCache, load_features
from fewshot_ad.parts.feature_store import (
    FeatureStore,
    clear_features,
    extractor_name,
    store_limit,
    stored_features,
)

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LEVELS = (torch.arange(24.0).view(2, 3, 4), torch.rand(5, 1, 1))
KEY = bytes(range(20))
PLENTY = 10**9


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path, "net", PLENTY)


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def equal(some: tuple[Tensor, ...], others: tuple[Tensor, ...] | None) -> bool:
    return others is not None and all(torch.equal(a, b) for a, b in zip(some, others, strict=True))


def test_what_was_saved_comes_back_in_the_same_bits(store: FeatureStore):
    assert store.load(KEY) is None
    store.save(KEY, LEVELS)
    assert equal(LEVELS, store.load(KEY))
    assert equal(LEVELS, FeatureStore(store.root, "net", PLENTY).load(KEY))
    assert FeatureStore(store.root, "other", PLENTY).load(KEY) is None
    assert store.load(bytes(20)) is None


def test_many_levels_keep_their_order(store: FeatureStore):
    many = tuple(torch.full((1, 1, 1), float(n)) for n in range(12))
    store.save(KEY, many)
    assert equal(many, store.load(KEY))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def of_another_version(path: Path) -> None:
    save_file(load_file(path), path, {"format": "0", "digest": "0"})


def of_another_kind(path: Path) -> None:
    path.write_bytes(b"GIF89a" * 30)


@pytest.mark.parametrize(
    "spoil", [truncate, empty, flip_a_bit, of_another_version, of_another_kind]
)
def test_a_spoilt_file_counts_as_absent_and_is_written_again(store: FeatureStore, spoil):
    store.save(KEY, LEVELS)
    (path,) = files(store.root)
    spoil(path)
    assert store.load(KEY) is None
    store.save(KEY, LEVELS)
    assert equal(LEVELS, store.load(KEY))


def test_a_full_disk_is_told_of_once_and_nothing_half_written_stays(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
):
    write = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        write(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", half)
    cache = FeatureCache(load_backbone("random:tiny"), max_bytes=0, store=store)
    wanted = cache.backbone(IMAGES)
    with pytest.warns(UserWarning, match="No space left on device"):
        assert equal(wanted, cache(IMAGES))
    assert equal(wanted, cache(IMAGES))  # and no second warning, which would be an error
    assert files(store.root) == []


def test_a_folder_that_cannot_be_made_is_told_of(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    store = FeatureStore(tmp_path / "file", "net", PLENTY)
    with pytest.warns(UserWarning, match="FEWSHOT_AD_CACHE"):
        store.save(KEY, LEVELS)
    assert store.load(KEY) is None


def test_the_oldest_make_way_when_the_limit_is_reached(tmp_path: Path):
    store = FeatureStore(tmp_path, "net", PLENTY)
    keys = [bytes([n] * 20) for n in range(10)]
    for age, key in enumerate(keys):
        store.save(key, LEVELS)
        os.utime(store._path(key), (10**9 + age, 10**9 + age))
    each = files(tmp_path)[0].stat().st_size
    store.load(keys[0])  # now the youngest
    FeatureStore(tmp_path, "other", 10 * each).save(KEY, LEVELS)
    left = {key for key in keys if store.load(key) is not None}
    assert left == {keys[0], *keys[3:]}  # a tenth of the limit is free again, and one file came
    assert sum(path.stat().st_size for path in files(tmp_path)) <= 9 * each


def test_an_image_larger_than_the_limit_is_not_kept(tmp_path: Path):
    store = FeatureStore(tmp_path, "net", 50)
    store.save(KEY, LEVELS)
    assert files(tmp_path) == []


def test_two_stores_on_one_folder_never_read_half_a_file(tmp_path: Path):
    stores = [FeatureStore(tmp_path, "net", 40_000) for _ in range(2)]
    keys = [bytes([n] * 20) for n in range(8)]
    wanted = {key: (torch.full((30, 10), float(key[0])),) for key in keys}

    def use(number: int) -> bool:
        key, one = keys[number % 8], stores[number % 2]
        found = one.load(key)
        one.save(key, wanted[key])
        if number % 31 == 0:
            clear_features(tmp_path)
        return found is None or equal(wanted[key], found)

    with ThreadPoolExecutor(4) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a folder that is cleared under a write
        assert all(pool.map(use, range(300)))
    assert all(path.suffix == ".safetensors" for path in files(tmp_path))


WRITER = """
import sys, torch
from pathlib import Path
from fewshot_ad.parts.feature_store import FeatureStore
store = FeatureStore(Path(sys.argv[1]), "net", 10**9)
print("ready", flush=True)
for number in range(10**6):
    store.save(number.to_bytes(20, "big"), (torch.full((200, 200), float(number)),))
"""


def test_a_kill_leaves_whole_files(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        deadline = time.time() + 30
        while len(files(tmp_path)) < 20 and time.time() < deadline:
            time.sleep(0.01)
        process.kill()
    store = FeatureStore(tmp_path, "net", PLENTY)
    kept = [path for path in files(tmp_path) if path.suffix == ".safetensors"]
    assert len(kept) >= 19
    for path in kept:
        number = int.from_bytes(bytes.fromhex(path.stem), "big")
        assert equal((torch.full((200, 200), float(number)),), store.load(bytes.fromhex(path.stem)))


def test_abandoned_writes_are_swept_and_running_ones_are_not(tmp_path: Path):
    old, new = tmp_path / "net" / "a.1.part", tmp_path / "net" / "b.2.part"
    old.parent.mkdir()
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (10**9, 10**9))
    assert clear_features(tmp_path) == 4
    assert files(tmp_path) == [new]


def test_a_run_finds_what_another_has_left(tmp_path: Path):
    backbone = load_backbone("random:tiny")
    store = FeatureStore(tmp_path, extractor_name(backbone), PLENTY)
    wanted = FeatureCache(backbone, store=store)(IMAGES)
    later = FeatureCache(backbone, store=FeatureStore(tmp_path, store.extractor, PLENTY))
    twice = IMAGES[[0, 1, 2, 3, 0]]
    assert equal([level[[0, 1, 2, 3, 0]] for level in wanted], later(twice))
    assert equal(wanted, later(IMAGES))
    assert (later.stats.misses, later.stats.read, later.stats.hits) == (0, 4, 4)


def test_another_network_has_another_name_and_the_same_one_the_same():
    names = [
        extractor_name(load_backbone(*arguments, levels=levels))
        for arguments, levels in (
            (["tiny"], (1, 2)),
            (["tiny"], (1, 2)),
            (["tiny"], (2, 3)),
            (["random:tiny"], (1, 2)),
        )
    ]
    assert names[0] == names[1]
    assert len({*names}) == 3
    assert all(set(name) <= {*"abcdefghijklmnopqrstuvwxyz0123456789_-"} for name in names)


def test_code_that_changed_makes_another_name_though_its_weights_stay():
    backbone = load_backbone("tiny")
    before = extractor_name(backbone)
    backbone.network.register_forward_hook(lambda _, __, maps: [2 * level for level in maps])
    assert extractor_name(backbone) != before


def test_the_variable_switches_it_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FEWSHOT_AD_CACHE", str(tmp_path))
    assert load_features("random:tiny").store is None
    monkeypatch.setenv("FEWSHOT_AD_FEATURE_CACHE", "0.5")
    cache = load_features("random:tiny")
    assert cache.store is not None
    assert cache.store.max_bytes == 500_000_000
    assert load_features("random:tiny").store is cache.store
    cache(torch.rand(2, 3, 16, 16))
    (kept,) = stored_features(tmp_path / "features")
    assert (kept.images, kept.bytes) == (2, sum(p.stat().st_size for p in files(tmp_path)))
    monkeypatch.delenv("FEWSHOT_AD_FEATURE_CACHE")
    assert load_features("random:tiny").store is None


@pytest.mark.parametrize("text", ["much", "-1", "nan", "inf", "10GB"])
def test_a_limit_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(feature_store.VARIABLE, text)
    with pytest.raises(FewShotError, match="expected the gigabytes"):
        store_limit()
