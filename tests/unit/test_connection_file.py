"""Who can read the connection file can run code as its owner."""

import os
import stat
from pathlib import Path

import msgspec
import pytest

from nbqueue.brokers.zmq.connection import MAX_SOCKET_PATH, Connection, HubFiles, tail
from nbqueue.errors import BrokerUnavailable, EnvironmentMismatch, UnsafeConnectionFile
from nbqueue.wire.messages import PROTOCOL_VERSION
from nbqueue.wire.private import check_private, secure_folder

CONNECTION = Connection(
    protocol=PROTOCOL_VERSION,
    pid=4711,
    endpoint="/run/hub.sock",
    token=b"\x00\xffsecret",
    epoch=b"epoch",
    python="3.11",
    blob_roots=["/dev/shm/x"],
    log="/run/hub.log",
)


@pytest.fixture
def files(tmp_path):
    files = HubFiles(tmp_path / "run", "x")
    files.secure_folder()
    return files


@pytest.fixture
def published(files):
    files.write_connection(CONNECTION)
    return files


# -- the file ----------------------------------------------------------------------------------------------------------


def test_what_was_published_is_read(published):
    assert CONNECTION == published.read_connection()


def test_no_file_is_no_hub(files):
    assert files.read_connection() is None


def test_the_file_is_private_and_nothing_else_is_left(published):
    assert 0o600 == stat.S_IMODE(published.connection.stat().st_mode)
    assert ["hub-x.json"] == os.listdir(published.folder)


def test_a_new_hub_replaces_the_file_of_the_old_one(published):
    # Given the file of an old hub, and one that this process left unfinished
    published.connection.with_suffix(f".{os.getpid()}").write_text("unfinished")

    # When a new hub publishes itself
    new = msgspec.structs.replace(CONNECTION, pid=4712)
    published.write_connection(new)

    # Then it is found
    assert new == published.read_connection()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o602, 0o610])
def test_a_file_that_is_open_to_others_is_refused(published, mode):
    published.connection.chmod(mode)

    with pytest.raises(UnsafeConnectionFile, match=rf"mode {mode:04o}.*chmod 600"):
        published.read_connection()


def test_a_file_behind_a_link_is_refused(published, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    published.connection.rename(elsewhere)
    published.connection.symlink_to(elsewhere)

    with pytest.raises(UnsafeConnectionFile, match="cannot be opened safely"):
        published.read_connection()


def test_a_file_of_another_user_is_refused(published, monkeypatch):
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)

    with pytest.raises(UnsafeConnectionFile, match=f"belongs to user {owner}, not to you"):
        published.read_connection()


@pytest.mark.parametrize("length", [0, 1, 20, 100])
def test_half_a_file_is_damaged(published, length):
    published.connection.write_bytes(msgspec.json.encode(CONNECTION)[:length])

    with pytest.raises(BrokerUnavailable, match=r"is damaged.*run `nbqueue stop`"):
        published.read_connection()


@pytest.mark.parametrize(
    "data",
    [
        b"rubbish",
        b"[]",
        b'{"protocol": 1, "pid": "x"}',
        b'{"protocol": %d, "pid": 1}' % PROTOCOL_VERSION,
        b"\xff\x00",
        b"null",
    ],
)
def test_anything_else_is_damaged(published, data):
    published.connection.write_bytes(data)

    with pytest.raises(BrokerUnavailable, match="is damaged"):
        published.read_connection()


def test_a_hub_of_another_version_is_named(published):
    # Given a file that has nothing in common with ours but these two
    other = PROTOCOL_VERSION + 1
    published.connection.write_bytes(msgspec.json.encode({"protocol": other, "pid": 12, "new": []}))

    # Then both versions, its process and the way out are told
    with pytest.raises(EnvironmentMismatch) as caught:
        published.read_connection()
    sentence = str(caught.value)
    assert f"(pid 12) speaks protocol {other}, this nbqueue {PROTOCOL_VERSION}: run `nbqueue stop`" in sentence


# -- the folder --------------------------------------------------------------------------------------------------------


def test_a_folder_is_made_for_nobody_else(tmp_path):
    secure_folder(tmp_path / "a" / "b")

    assert 0o700 == stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode)


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o701, 0o1777])
def test_a_folder_that_is_open_to_others_is_refused(files, mode):
    files.folder.chmod(mode)

    with pytest.raises(UnsafeConnectionFile, match=rf"mode {mode:04o}.*chmod 700"):
        files.secure_folder()


def test_a_link_to_a_folder_is_refused(files, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(files.folder)

    with pytest.raises(UnsafeConnectionFile):
        secure_folder(link)


def test_a_folder_of_another_user_is_refused(files, monkeypatch):
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)

    with pytest.raises(UnsafeConnectionFile, match="NBQUEUE_RUNTIME_DIR"):
        check_private(files.folder, files.folder.lstat())


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(BrokerUnavailable, match=f"the folder {file}/run cannot be made"):
        secure_folder(file / "run")


# -- the socket --------------------------------------------------------------------------------------------------------


def test_a_socket_has_a_short_path_or_none():
    # Given folders whose socket just fits, and does not
    fits = Path("/" + "f" * (MAX_SOCKET_PATH - len("//x.sock")))
    assert fits / "x.sock" == HubFiles(fits, "x").socket

    # Then the longer one is refused, with the way out
    with pytest.raises(BrokerUnavailable, match=r"\(101 > 100 bytes\): set NBQUEUE_RUNTIME_DIR"):
        _ = HubFiles(Path(f"{fits}f"), "x").socket


def test_hubs_of_other_folders_and_names_share_no_large_payloads(tmp_path):
    first, second, third = HubFiles(tmp_path / "a", "x"), HubFiles(tmp_path / "b", "x"), HubFiles(tmp_path / "a", "y")

    assert set() == set(first.blob_roots) & set(second.blob_roots)
    assert set() == set(first.blob_roots) & set(third.blob_roots)
    assert first.blob_roots == HubFiles(tmp_path / "a", "x").blob_roots


# -- the lock ----------------------------------------------------------------------------------------------------------


def test_a_hub_lives_as_long_as_its_lock_is_held(files):
    # Given no hub
    assert not files.is_hub_alive()

    # When one takes the lock
    descriptor = files.try_lock()

    # Then it lives, nobody else gets the lock, and it is private
    assert descriptor is not None
    assert files.is_hub_alive()
    assert files.try_lock() is None
    assert 0o600 == stat.S_IMODE(files.lock.stat().st_mode)

    # When it ends, however
    os.close(descriptor)

    # Then only its file is left
    assert not files.is_hub_alive()
    assert files.lock.exists()


@pytest.mark.parametrize(("content", "expected"), [(None, None), (b"", None), (b"x", None), (b"4711", 4711)])
def test_the_lock_names_its_process_or_nobody(files, content, expected):
    if content is not None:
        files.lock.write_bytes(content)

    assert expected == files.pid_in_any_version()


def test_the_end_of_a_log_is_shown(files):
    files.log.write_bytes(b"one\ntwo\n\xff three\n\n")

    assert "two\n� three" == files.log_tail(2)
    assert "" == tail(files.folder / "none", 2)
