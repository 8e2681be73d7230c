"""A home that leaves a mesh of its own for another one, and is cut short wherever that may be."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from integration.node import cut_short
from integration.rpc.enrolling import Desk, answering
from integration.rpc.fleet import Founded, now_s

from meshnode.client.home import Home
from meshnode.core.control.control import ControlSet
from meshnode.core.control.entries import CONTROL, role_entry
from meshnode.core.control.roles import Role
from meshnode.core.errors import ConflictError, DamagedError, PeerError, StorageError
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.certificates import from_pem
from meshnode.core.membership.enrolment import apply_with
from meshnode.core.membership.genesis import genesis_from_bytes
from meshnode.core.packing import PACKED_BYTES_MAX
from meshnode.node.homes import entering, joining
from meshnode.node.homes.entering import MESH_CHARS, finish_begun
from meshnode.node.homes.founding import NAME_FACT, device_key, init, read_genesis, recover
from meshnode.node.homes.membership import membership_in
from meshnode.node.homes.roots import known_roots
from meshnode.rpc.enrolment import ask_to_join
from meshnode.store import facts, feeds
from meshnode.store.database import Database
from meshnode.v1 import enrolment_service_pb2 as pb

pytestmark = pytest.mark.integration
SCRIPT = str(Path(cut_short.__file__))
SEED = 12  # of the other mesh
PATIENCE_S = 200
MOST = 120  # points of a join, and some more
KEYS = ("root.key", "operator.key", "operator.pub", "session-root.key")
FILES = (*KEYS, "genesis.bin", "node.crt", "roots.bin", "beginning.bin", "node.key")


@pytest.fixture
async def folder(tmp_path):
    """A home with a mesh of its own, an invite into another, and what its admitter answers."""
    folder = tmp_path / "joining"
    folder.mkdir()
    home = Home(folder / "home")
    init(home, "own", "anna", None)
    mesh = Founded(SEED)
    database = Database(folder / "desk.db")
    desk = Desk(mesh, database)
    async with answering(desk.servicer(), desk.member.identity) as address:
        invite = await desk.invite(address)
        application = apply_with(device_key(home), None, invite, "anna", bytes(16))
        _, answer = await asyncio.to_thread(ask_to_join, invite, application)
    database.close()
    (folder / "invite").write_text(invite.to_text())
    (folder / "answer").write_bytes(answer.SerializeToString())
    return folder


def held(home: Home) -> dict[str, bytes]:
    return {name: (home.path / name).read_bytes() for name in FILES if (home.path / name).exists()}


def cut(folder: Path, way: str) -> dict[int, tuple[int, str]]:
    """Let a copy of the home a point join; returns how each ended before it had joined."""
    for point in range(1, MOST + 1):
        shutil.copytree(folder / "home", folder / str(point), ignore=shutil.ignore_patterns("run"))
    words = [sys.executable, SCRIPT, str(folder), way, *map(str, range(1, MOST + 1))]
    done = subprocess.run(words, capture_output=True, timeout=PATIENCE_S, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ended = {point: (code, said) for point, code, said in map(json.loads, done.stdout.splitlines())}
    assert ended[MOST][0] == cut_short.DONE  # so all points were tried
    return {point: how for point, how in ended.items() if how[0] != cut_short.DONE}


def judge(home: Home, before: dict[str, bytes], mesh_id: str) -> str:
    """Check what was left of a home, and what a start makes of it; returns how far it had come."""
    left, begun = held(home), home.joining.exists()
    is_old = left["genesis.bin"] == before["genesis.bin"]
    if is_old:
        assert {name: left.get(name) for name in KEYS} == {name: before[name] for name in KEYS}
    finish_begun(home)
    if is_old and not begun:
        assert left == held(home) == before
        return "not begun"
    joined(home, before, mesh_id)
    return "begun" if is_old else "entered"


def joined(home: Home, before: dict[str, bytes], mesh_id: str) -> None:
    """Check that a home is wholly a member's of the other mesh, and has lost nothing."""
    after, genesis = held(home), read_genesis(home)
    node_id = node_id_of(device_key(home).public)
    assert genesis.mesh_id == mesh_id
    chain = from_pem(after["node.crt"])
    assert membership_in(chain, genesis, node_id, known_roots(home, genesis)).chains_to_root
    assert not home.joining.exists()
    assert not set(after) & set(KEYS)
    old = f".{genesis_from_bytes(before['genesis.bin']).mesh_id[:MESH_CHARS]}"
    aside = {name: (home.path / f"{name}{old}").read_bytes() for name in KEYS}
    assert aside == {name: before[name] for name in KEYS}
    with closing(Database(home.database)) as database:
        assert database.run_now(facts.recall, NAME_FACT) == b"anna"
        assert not database.run_now(feeds.load).damaged_entries


@pytest.mark.parametrize(("way", "code"), [("dies", -signal.SIGKILL), ("full", 1)])
def test_a_join_that_is_cut_short_anywhere_is_finished_by_a_start_or_never_was(folder, way, code):
    before, mesh_id = held(Home(folder / "home")), Founded(SEED).mesh_id
    ended = cut(folder, way)
    assert {how for how, _ in ended.values()} == {code}
    if way == "full":
        assert all("cannot write" in said for _, said in ended.values())
    far = [judge(Home(folder / str(point)), before, mesh_id) for point in ended]
    assert far == sorted(far, key=["not begun", "begun", "entered"].index)
    assert set(far) == {"not begun", "begun", "entered"}


def test_a_disk_that_is_full_is_told_with_what_finishes_the_join(folder, tmp_path, monkeypatch):
    home, before = copied(folder, tmp_path), held(Home(folder / "home"))

    def full(*_: object) -> None:
        raise StorageError("the disk is full", "make room")

    with monkeypatch.context() as patched:
        patched.setattr(entering, "remember", full)
        with pytest.raises(StorageError) as failure:
            join_again(folder, home, patched)
    assert failure.value.hint.startswith("make room; then let a start finish the join")
    assert held(home) == before
    finish_begun(home)
    joined(home, before, Founded(SEED).mesh_id)


def test_no_mesh_is_made_in_a_home_that_is_about_to_belong_to_one(folder, tmp_path):
    home = copied(folder, tmp_path)
    home.joining.write_bytes(b"")
    home.genesis.unlink()
    with pytest.raises(ConflictError, match="join was cut short"):
        init(home, "mesh", "anna", None)


def test_what_a_join_left_behind_is_never_guessed(folder, tmp_path, monkeypatch):
    home, before = copied(folder, tmp_path), held(Home(folder / "home"))
    home.joining.write_bytes(b"\x81\xa3old\xa0")
    for ask in (lambda: finish_begun(home), lambda: join_again(folder, home, monkeypatch)):
        with pytest.raises(DamagedError, match="is damaged") as failure:
            ask()
        assert "join again" in failure.value.hint
        assert held(home) == before


def test_a_key_that_is_aside_already_is_kept_beside_the_next(folder, tmp_path, monkeypatch):
    home = copied(folder, tmp_path)
    first = home.path / f"root.key.{read_genesis(home).mesh_id[:MESH_CHARS]}"
    first.write_bytes(b"another")
    root = home.root_key.read_bytes()
    join_again(folder, home, monkeypatch)
    (second,) = home.path.glob(f"{first.name}.*")
    assert (first.read_bytes(), second.read_bytes()) == (b"another", root)


def copied(folder: Path, where: Path) -> Home:
    shutil.copytree(folder / "home", where / "home", ignore=shutil.ignore_patterns("run"))
    return Home(where / "home")


def join_again(folder: Path, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = pb.JoinResponse.FromString((folder / "answer").read_bytes())
    monkeypatch.setattr(joining, "ask_to_join", lambda *_: ("127.0.0.1:7708", answer))
    joining.join(home, (folder / "invite").read_text())


def test_an_answer_that_no_home_could_begin_with_leaves_it_as_it_was(folder, tmp_path, monkeypatch):
    home, before = copied(folder, tmp_path), held(Home(folder / "home"))
    answer = pb.JoinResponse.FromString((folder / "answer").read_bytes())
    answer.addresses.append("x" * PACKED_BYTES_MAX)
    (folder / "answer").write_bytes(answer.SerializeToString())
    with pytest.raises(PeerError, match="more than a home may begin with"):
        join_again(folder, home, monkeypatch)
    assert held(home) == before
    assert not home.joining.exists()


@pytest.mark.parametrize("is_new", [True, False])
async def test_of_a_control_set_beyond_one_file_a_member_keeps_what_it_needs_first(
    tmp_path, is_new
):
    home, mesh = Home(tmp_path / "home"), Founded(SEED)
    if not is_new:
        init(home, "own", "anna", None)
    database = Database(tmp_path / "desk.db")
    desk = Desk(mesh, database)
    trusted = fill(desk)
    assert sum(len(one.payload) for one in desk.control.entries()) > PACKED_BYTES_MAX * 1.4
    async with answering(desk.servicer(), desk.member.identity) as address:
        invite = await desk.invite(address, role="operator")
        said = await asyncio.to_thread(joining.join, home, invite.to_text(), node_name="anna")
    database.close()
    assert said["role"] == "operator"
    assert not home.joining.exists()
    assert PACKED_BYTES_MAX * 9 // 10 < home.beginning.stat().st_size <= PACKED_BYTES_MAX
    home.database.unlink()
    with closing(Database(home.database)) as lost:
        recover(home, lost)
        kept = ControlSet(mesh.genesis)
        assert kept.add_all(lost.run_now(feeds.load).control, now_s()) == []
    assert {trusted} < set(kept.entries()) < set(desk.control.entries())
    assert kept.role_of(bytes.fromhex(home.operator_public.read_text())) == "operator"


def fill(desk: Desk) -> Signed:
    """Let an operator say 1.5 MB that no member needs to begin with; returns who let it."""
    mesh, at_s, user = desk.mesh, int(now_s()), Key.new(desk.mesh.chance)
    role = Role(user.public, "operator", "bob", mesh.root.public, at_s, None)
    trusted = role_entry(mesh.root, mesh.mesh_id, role, mesh.chance)
    desk.control.add(trusted, at_s)
    said = {"mesh": mesh.mesh_id, "kind": "later", "issuer": user.public, "pad": "x" * 3700}
    for _ in range(400):
        one = {"id": mesh.chance(16), "issued": at_s, "expires": at_s + 86400}
        desk.control.add(user.sign(CONTROL, said | one), at_s)
    return trusted
