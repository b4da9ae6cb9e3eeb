"""Large payloads as files."""

import os
import stat
import time
from types import SimpleNamespace

import pytest

from nbqueue.errors import BrokerUnavailable, UnsafeConnectionFile
from nbqueue.wire import blobs
from nbqueue.wire.blobs import MARK, RESERVE_BYTES, SWEEP_AFTER_S, BlobStore, blob_roots, sweep


@pytest.fixture
def roots(tmp_path):
    return [tmp_path / "fast", tmp_path / "slow"]


@pytest.fixture
def store(roots):
    store = BlobStore(roots)
    store.create()
    return store


@pytest.fixture
def fill(monkeypatch):
    """Let a folder have no room for more than so many bytes."""
    free = {}
    real = os.statvfs

    def statvfs(path):
        if path not in free:
            return real(path)
        return SimpleNamespace(f_bavail=RESERVE_BYTES + free[path], f_frsize=1)

    monkeypatch.setattr(os, "statvfs", statvfs)
    return lambda root, left=0: free.update({root: left})


def test_parts_come_back_as_one(store):
    name = store.write("run", [b"one", bytearray(b"two"), memoryview(b"three")])

    assert b"onetwothree" == store.open(name)


def test_folders_and_files_are_closed_to_others(store, roots):
    store.write("run", [b"x"])
    [file] = (roots[0] / "run").iterdir()

    assert [0o700, 0o700, 0o600] == [stat.S_IMODE(path.stat().st_mode) for path in (roots[0], file.parent, file)]


def test_a_reader_may_write_and_nobody_else_sees_it(store):
    name = store.write("run", [b"abc"])
    mine = store.open(name)
    mine[0] = ord("X")

    assert b"Xbc" == mine
    assert b"abc" == store.open(name)


def test_without_room_the_next_folder_is_taken(store, roots, fill):
    fill(roots[0], left=2)

    assert b"abc" == store.open(store.write("run", [b"abc"]))
    assert [MARK] == os.listdir(roots[0])
    assert store.write("run", [b"ab"]).startswith("0/")


def test_without_room_anywhere_every_folder_is_named(store, roots, fill):
    for root in roots:
        fill(root)

    with pytest.raises(BrokerUnavailable) as caught:
        store.write("run", [b"abc"])
    assert all(str(root) in str(caught.value) for root in roots)


def test_a_disk_that_fills_up_while_it_is_written_leaves_nothing_behind(store, roots, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.rename", full)

    with pytest.raises(BrokerUnavailable, match="No space left"):
        store.write("run", [b"abc"])
    assert [[], []] == [os.listdir(root / "run") for root in roots]


def test_a_store_without_folders_says_so():
    with pytest.raises(BrokerUnavailable, match="no folder is configured"):
        BlobStore([]).write("run", [b"x"])


def test_what_is_known_by_its_name_is_written_once(store, roots):
    first = store.write("f", [b"body"], name="function")
    inode = (roots[0] / "f" / "function").stat().st_ino

    assert first == store.write("f", [b"body"], name="function")
    assert inode == (roots[0] / "f" / "function").stat().st_ino


def test_a_discarded_payload_is_gone_but_stays_where_it_is_mapped(store):
    # Given payloads of two runs, one of them mapped
    name, other = store.write("run", [b"abc"]), store.write("other", [b"xyz"])
    mapped = store.open(name)

    # When that run is forgotten, and one that never had a payload
    store.discard(["run", "never"])

    # Then it cannot be opened any more, and all else is as it was
    with pytest.raises(BrokerUnavailable, match="its run was forgotten"):
        store.open(name)
    assert (b"abc", b"xyz") == (mapped, store.open(other))


@pytest.mark.parametrize("name", ["0/run/none", "9/run/none", "x/run/none", ""])
def test_a_name_of_nothing_is_a_payload_that_is_gone(store, name):
    with pytest.raises(BrokerUnavailable):
        store.open(name)


def test_a_store_that_was_destroyed_takes_no_more(store, roots):
    store.write("run", [b"abc"])
    store.destroy()

    assert [False, False] == [root.exists() for root in roots]
    with pytest.raises(BrokerUnavailable):
        store.write("run", [b"abc"])


# -- what dead owners have left ----------------------------------------------------------------------------------------


@pytest.fixture
def left(monkeypatch, tmp_path):
    """A root of another owner, old enough to be looked at: ``make(is_marked)``."""
    monkeypatch.setattr(blobs, "_bases", lambda: [tmp_path])

    def make(owner, *, is_marked=True, age_s=2 * SWEEP_AFTER_S):
        [root] = blob_roots(owner)
        root.mkdir()
        if is_marked:
            (root / MARK).touch()
            (root / "run").mkdir()
        then = time.time() - age_s
        os.utime(root, (then, then))
        return root

    return make


def test_what_dead_owners_have_left_is_deleted(left):
    dead = left("dead")

    sweep()

    assert not dead.exists()


def test_what_somebody_needs_is_left_alone(left, tmp_path):
    # Given a root in use, one that is being made, a file of that name, and a folder that was never a root
    [root] = blob_roots("living")
    living = BlobStore([root])
    living.create()
    os.utime(root, (0, 0))
    young = left("young", age_s=1.0)
    other = left("other", is_marked=False)
    file = other.with_name(f"{other.name}-file")
    file.touch()
    os.utime(file, (0, 0))

    sweep()

    assert all(path.exists() for path in (root, young, other, file))

    # And when its owner has gone, it goes
    living.destroy()
    assert not root.exists()


def test_a_root_that_others_may_enter_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)

    with pytest.raises(UnsafeConnectionFile, match="open to other users"):
        BlobStore([tmp_path / "open"]).create()
