"""Homes whose files somebody has put there, opened to others, linked, or taken away."""

import fcntl
import os
import socket
from pathlib import Path

import pytest

from meshnode.agents.output import Begin, read_log
from meshnode.client.connection.connection import Connection
from meshnode.client.errors import NoNodeError
from meshnode.client.home import Home, home_at, make_private
from meshnode.client.keys.keyfiles import read_secret, tighten, write_secret, write_whole
from meshnode.core.errors import (
    ConflictError,
    DamagedError,
    MeshError,
    NotPermittedError,
    RefusedError,
    UsageError,
)
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.node.clock import chance
from meshnode.node.homes.founding import device_key, init
from meshnode.node.homes.membership import check_identity
from meshnode.node.lock import HomeLock

SECRET = bytes(range(32))
NOBODY = 65533


@pytest.fixture
def home(tmp_path):
    path = tmp_path / "h"
    make_private(path)
    return Home(path)


def link(path: Path) -> None:
    path.rename(path.with_name("target"))
    path.symlink_to("target")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def give_away(path: Path) -> None:
    try:
        os.chown(path, NOBODY, NOBODY)
    except PermissionError:
        pytest.skip("only root gives files away")


SPOILED = {
    "readable by all": (lambda path: path.chmod(0o644), "chmod 600"),
    "readable by the group": (lambda path: path.chmod(0o640), "chmod 600"),
    "a link": (link, "never links"),
    "a pipe that nobody writes": (pipe, "plain file"),
    "a directory": (directory, "plain file"),
    "of another user": (give_away, "chown"),
    "where all may write": (lambda path: path.parent.chmod(0o777), "chmod o-w"),
}


@pytest.mark.parametrize(("spoil", "said"), SPOILED.values(), ids=SPOILED)
def test_a_key_is_read_only_from_a_file_of_this_users_alone(home, spoil, said):
    write_secret(home.node_key, SECRET)
    spoil(home.node_key)
    before = home.node_key.lstat()
    with pytest.raises(NotPermittedError) as refused:
        read_secret(home.node_key)
    assert said in f"{refused.value.message} {refused.value.hint}"
    after = home.node_key.lstat()
    assert (after.st_mode, after.st_uid, after.st_ino) == (
        before.st_mode,
        before.st_uid,
        before.st_ino,
    )


@pytest.mark.parametrize("target", ["there", "nowhere"])
def test_a_key_is_never_written_through_a_link(home, target):
    (home.path / "there").write_bytes(b"as it was")
    home.operator_key.symlink_to(target)
    with pytest.raises(ConflictError):
        write_secret(home.operator_key, SECRET)
    assert (home.path / "there").read_bytes() == b"as it was"
    assert sorted(one.name for one in home.path.iterdir()) == ["operator.key", "there"]


def test_a_draft_that_was_put_there_before_is_not_written_through(home):
    victim = home.path / "victim"
    victim.write_bytes(b"as it was")
    (home.path / f"genesis.bin.{os.getpid()}.new").symlink_to("victim")
    write_whole(home.genesis, b"genesis")
    assert (victim.read_bytes(), home.genesis.read_bytes()) == (b"as it was", b"genesis")
    assert not home.genesis.is_symlink()


def test_a_key_that_does_not_fit_its_certificate_is_told_with_what_to_do(home):
    made = init(home, "mesh", "anna", None)
    check_identity(home, made["node_id"])
    home.node_key.unlink()
    write_secret(home.node_key, Key.new(chance).seed)
    certificates = home.certificates.read_bytes()
    with pytest.raises(DamagedError, match="one of them was replaced") as told:
        check_identity(home, node_id_of(device_key(home).public))
    assert made["node_id"] in told.value.hint
    assert home.certificates.read_bytes() == certificates


def test_every_secret_of_a_new_home_is_the_users_alone(home):
    mask = os.umask(0)
    try:
        init(home, "mesh", "anna", None)
    finally:
        os.umask(mask)
    secret = (home.node_key, home.operator_key, home.session_root, home.root_key, home.database)
    assert [path.stat().st_mode & 0o777 for path in secret] == [0o600] * 5


def test_a_second_node_is_kept_out_even_where_the_lock_file_is_taken_away(home):
    with HomeLock(home):
        with pytest.raises(ConflictError, match=str(os.getpid())):
            HomeLock(home).__enter__()
        home.lock.unlink()
        with pytest.raises(ConflictError):
            HomeLock(home).__enter__()
        home.socket.touch()  # the first one's would be replaced by who gets in
    home.socket.unlink()
    with HomeLock(home):
        assert home.lock.read_text() == f"{os.getpid()} up\n"


@pytest.mark.parametrize("spoil", [link, pipe, directory, give_away])
def test_a_lock_that_is_no_file_of_ours_is_not_taken(home, spoil):
    make_private(home.run)
    home.lock.touch(mode=0o600)
    spoil(home.lock)
    with pytest.raises(NotPermittedError):
        HomeLock(home).__enter__()
    descriptor = os.open(home.path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nothing stays locked
    os.close(descriptor)


def test_what_lies_in_the_sockets_place_is_left_alone_unless_it_is_a_socket(home):
    make_private(home.run)
    home.socket.write_text("mine")
    with pytest.raises(ConflictError, match="no socket"):
        HomeLock(home).__enter__()
    assert home.socket.read_text() == "mine"
    home.socket.rename(home.run / "kept")
    home.socket.symlink_to("kept")
    with pytest.raises(ConflictError, match="no socket"):
        HomeLock(home).__enter__()
    assert (home.run / "kept").read_text() == "mine"
    home.socket.unlink()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(home.socket))
    with HomeLock(home):
        assert not home.socket.exists()


def open_to_all(path: Path) -> None:
    path.chmod(0o755)


@pytest.mark.parametrize("spoil", [open_to_all, give_away])
def test_nothing_is_said_to_a_socket_in_a_directory_of_others(home, spoil):
    make_private(home.run)
    with socket.socket(socket.AF_UNIX) as hostile:
        hostile.bind(str(home.socket))
        hostile.listen()
        hostile.settimeout(0.0)
        spoil(home.run)
        with pytest.raises(NotPermittedError):
            Connection(home).__enter__()
        with pytest.raises(BlockingIOError):
            hostile.accept()


def test_a_home_that_is_a_link_is_not_used_and_says_what_it_leads_to(home, tmp_path):
    (tmp_path / "link").symlink_to("h")
    linked = home_at(str(tmp_path / "link"))
    with pytest.raises(UsageError) as refused:
        make_private(linked.path)
    assert str(home.path) in refused.value.hint
    with pytest.raises(UsageError):
        HomeLock(linked).__enter__()
    assert list(home.path.iterdir()) == []
    (tmp_path / "to").symlink_to(".")
    below = home_at(str(tmp_path / "to" / "h"))  # a link that leads to it is fine
    make_private(below.path)
    with pytest.raises(NoNodeError):
        Connection(below).__enter__()


def test_a_home_that_leads_nowhere_or_cannot_be_made_is_told(tmp_path):
    (tmp_path / "nowhere").symlink_to("gone")
    for path in (tmp_path / "nowhere", Path("/proc/self/home")):
        with pytest.raises(MeshError) as refused:
            make_private(path)
        assert str(path) in refused.value.message
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("name", ["node.log", "state.db", "state.db-wal"])
def test_what_was_left_open_is_closed_and_what_is_a_link_is_refused(home, name):
    path = home.path / name
    path.write_text("words")
    path.chmod(0o644)
    tighten(path)
    assert path.stat().st_mode & 0o777 == 0o600
    victim = home.path / "victim"
    path.rename(victim)
    victim.chmod(0o644)
    path.symlink_to("victim")
    with pytest.raises(NotPermittedError, match="cannot open"):
        tighten(path)
    assert victim.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("spoil", [link, pipe, directory])
@pytest.mark.parametrize("name", ["output.log", "output.log.1"])
def test_a_log_that_an_agent_replaced_is_neither_followed_nor_waited_for(home, name, spoil):
    (home.path / "output.log").write_text("words\n")
    (home.path / name).write_text("words\n")
    spoil(home.path / name)
    with pytest.raises(RefusedError, match="no plain file"):
        list(read_log(home.path, Begin()))
