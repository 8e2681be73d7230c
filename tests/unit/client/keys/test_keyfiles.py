"""What a home keeps in files: whole or not at all."""

import errno
import os

import pytest

from meshnode.client.keys.keyfiles import read_secret, write_secret, write_whole
from meshnode.core.errors import ConflictError, StorageError

SECRET = bytes(range(32))


@pytest.fixture
def full_disk(monkeypatch):
    def fsync(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    return monkeypatch.undo


def test_a_key_that_finds_no_room_leaves_nothing_in_the_way_of_the_next(tmp_path, full_disk):
    path = tmp_path / "node.key"
    with pytest.raises(StorageError, match="No space left"):
        write_secret(path, SECRET)
    assert list(tmp_path.iterdir()) == []
    full_disk()
    write_secret(path, SECRET)
    assert read_secret(path) == SECRET
    with pytest.raises(ConflictError):
        write_secret(path, SECRET)


def test_a_file_that_finds_no_room_stays_as_it_was(tmp_path, full_disk):
    path = tmp_path / "genesis.bin"
    path.write_bytes(b"before")
    with pytest.raises(StorageError, match="No space left"):
        write_whole(path, b"after")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"before"]
    full_disk()
    write_whole(path, b"after")
    assert [one.read_bytes() for one in tmp_path.iterdir()] == [b"after"]
