"""Who can read the key file can run code on every worker."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from nbqueue.errors import KeyFileError
from nbqueue.wire.keyfile import (
    add_new_key,
    default_key_file,
    format_key,
    load_keys,
    load_or_make_keys,
    make_key_file,
    parse_key,
)
from nbqueue.wire.seal import SealingKey


@pytest.fixture
def path(tmp_path):
    return tmp_path / "config" / "nbqueue" / "key"


def test_the_key_is_made_on_first_use_and_then_stays(path):
    [made] = load_or_make_keys(path)
    [read] = load_or_make_keys(path)

    assert made.secret == read.secret
    assert (0o600, 0o700) == tuple(stat.S_IMODE(item.stat().st_mode) for item in (path, path.parent))
    assert ["key"] == os.listdir(path.parent)


def test_a_generous_umask_opens_nothing(path):
    before = os.umask(0)
    try:
        make_key_file(path)
    finally:
        os.umask(before)

    assert (0o600, 0o700) == tuple(stat.S_IMODE(item.stat().st_mode) for item in (path, path.parent))


def test_processes_that_make_it_at_once_agree(path):
    with ThreadPoolExecutor(8) as pool:
        secrets = {keys[0].secret for keys in pool.map(load_or_make_keys, [path] * 32)}

    assert 1 == len(secrets)


def test_a_worker_that_has_no_key_is_told_where_to_get_it(path):
    with pytest.raises(KeyFileError, match=r"there is no key file .*`nbqueue key` there tells how"):
        load_keys(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_can_read_is_refused(path, mode):
    make_key_file(path)
    path.chmod(mode)

    with pytest.raises(KeyFileError, match=rf"open to other users \(mode {mode:04o}\).*chmod 600"):
        load_keys(path)


def test_a_key_in_a_folder_that_others_can_write_to_is_refused(path):
    make_key_file(path)
    path.parent.chmod(0o777)

    with pytest.raises(KeyFileError, match="others may write to"):
        load_keys(path)
    path.unlink()
    with pytest.raises(KeyFileError, match="others may write to"):
        load_or_make_keys(path)


def test_a_key_of_somebody_else_is_refused(path, monkeypatch):
    make_key_file(path)
    owner = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: owner + 1)

    with pytest.raises(KeyFileError, match=f"belongs to user {owner}, not to you"):
        load_keys(path)


def test_a_link_is_not_followed(path, tmp_path):
    make_key_file(tmp_path / "elsewhere" / "key")
    path.parent.mkdir(parents=True)
    path.symlink_to(tmp_path / "elsewhere" / "key")

    with pytest.raises(KeyFileError, match="cannot be opened safely"):
        load_or_make_keys(path)


@pytest.mark.parametrize(
    "text", ["", "\n# a remark only\n", "secret", "nbqueue-key-1:short", "nbqueue-key-1:" + "*" * 43]
)
def test_a_damaged_file_is_refused_and_its_content_not_repeated(path, text):
    make_key_file(path)
    path.write_text(text)

    with pytest.raises(KeyFileError, match=r"is damaged|is empty") as refusal:
        load_keys(path)
    assert not text.strip() or text not in str(refusal.value)


def test_a_folder_or_a_pipe_in_its_place_is_refused(path):
    path.mkdir(parents=True)
    with pytest.raises(KeyFileError, match="is no file"):
        load_keys(path)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(KeyFileError, match="is no file"):
        load_keys(path)


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(KeyFileError, match=r"cannot be made.*NBQUEUE_KEY_FILE"):
        make_key_file(tmp_path / "file" / "key")


def test_several_keys_are_read_in_their_order(path):
    first, second = SealingKey(b"1" * 32), SealingKey(b"2" * 32)
    make_key_file(path)
    path.write_text(f"# new\n{format_key(first)}\n\n# until Friday\n{format_key(second)}\n")

    assert [first.id, second.id] == [key.id for key in load_keys(path)]


def test_a_new_key_seals_and_the_old_one_still_opens(path):
    [old] = load_or_make_keys(path)

    new, *others = add_new_key(path)

    assert [old.id] == [key.id for key in others]
    assert [new.id, old.id] == [key.id for key in load_keys(path)]
    assert ["key"] == os.listdir(path.parent)


def test_a_key_as_text_comes_back():
    key = SealingKey(bytes(range(32)))

    assert key.secret == parse_key(f"  {format_key(key)}\n").secret


def test_the_key_lives_where_settings_live(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert tmp_path / "nbqueue" / "key" == default_key_file()
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path / ".config" / "nbqueue" / "key" == default_key_file()
