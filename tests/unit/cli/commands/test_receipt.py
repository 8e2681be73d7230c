"""`receipt verify`: what is believed, what is told, and with which exit code."""

import json
from base64 import b64encode
from random import Random

import pytest
from msgspec.structs import replace

from meshnode.core.commands.commands import Command, Receipt, sign_command, sign_receipt
from meshnode.core.control.grants import Grant, SessionKey, grant
from meshnode.core.ids import b32, node_id_of
from meshnode.core.keys import Key, Signed
from meshnode.core.membership.genesis import Genesis
from meshnode.core.packing import pack

chance = Random(3).randbytes
ROOT, NODE, STRANGER = (Key.new(chance) for _ in range(3))
GENESIS = Genesis((ROOT.public,), 1, "test", bytes(16))
NODE_ID = node_id_of(NODE.public)
GRANT = Grant(GENESIS.mesh_id, ROOT.public, ROOT.public, ("kill",), 0, 1 << 40, bytes(16))
KEY = SessionKey(ROOT, (grant(ROOT, GRANT),))
ORDER = Command(GENESIS.mesh_id, bytes(16), NODE_ID, "s", 1, "kill", 1, 2)
COMMAND = sign_command(KEY, ORDER)
SAID = Receipt(
    GENESIS.mesh_id,
    bytes(16),
    COMMAND.hash,
    NODE_ID,
    "s",
    "applied",
    1_790_000_000.5,
    "1 process is \x1b[31mgone",
    {"found": 1, "gone": 1, "survivors": []},
)
SIGNED = sign_receipt(NODE, SAID)


def text(signed: Signed, *, kind: str = "") -> str:
    return b64encode(pack([kind or signed.type, signed.payload, signed.signature])).decode()


@pytest.fixture
def home(tmp_path, mesh):
    """A home that knows the node, in a mesh of one."""
    path = tmp_path / "home"
    path.mkdir(mode=0o700)
    (path / "genesis.bin").write_bytes(GENESIS.to_bytes())
    mesh.members = [{"node_id": NODE_ID, "name": "anna"}]
    return path


def test_a_receipt_is_verified_without_a_home(run):
    code, out, err = run("receipt", "verify", "-", "-o", "json", stdin=text(SIGNED))
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "verified": True,
        "is_member": None,
        "mesh_id": GENESIS.mesh_id,
        "node_id": NODE_ID,
        "node_name": None,
        "command_id": b32(bytes(16)),
        "command_hash": COMMAND.hash.hex(),
        "session_id": "s",
        "outcome": "applied",
        "at": "2026-09-21T14:13:20.500Z",
        "detail": "1 process is \x1b[31mgone",
        "processes": {"found": 1, "gone": 1, "survivors": []},
        "answers_command": None,
    }


def test_people_see_no_escape_sequence_of_a_node(run):
    code, out, _ = run("receipt", "verify", "-", stdin=text(SIGNED))
    assert code == 0
    assert "the signature is good" in out
    assert "\x1b" not in out


def test_the_whole_answer_of_a_steer_is_taken_too(run, tmp_path):
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps({"outcome": "failed", "receipt": text(SIGNED)}))
    code, out, _ = run("receipt", "verify", str(answer), "-q")
    assert (code, out.strip()) == (0, b32(bytes(16)))


def test_a_home_knows_its_members(run, home):
    code, out, _ = run("receipt", "verify", "-", "-o", "json", stdin=text(SIGNED))
    said = json.loads(out)
    assert (code, said["is_member"], said["node_name"]) == (0, True, "anna")


def test_a_receipt_of_a_stranger_is_exit_1(run, home, mesh):
    mesh.members = []
    code, _, err = run("receipt", "verify", "-", stdin=text(SIGNED))
    assert (code, "does not know that node" in err) == (1, True)


def test_a_member_that_speaks_for_another_mesh_is_exit_1(run, home):
    other = sign_receipt(NODE, replace(SAID, mesh="another"))
    assert run("receipt", "verify", "-", stdin=text(other))[0] == 1


@pytest.mark.parametrize("form", ["outbox", "base64"])
def test_a_receipt_is_compared_with_the_command_that_it_shall_answer(run, tmp_path, form):
    file = tmp_path / "command"
    raw = pack(COMMAND.to_list())
    file.write_bytes(raw if form == "outbox" else text(COMMAND).encode())
    words = ("receipt", "verify", "-", "--command", str(file), "-o", "json")
    code, out, _ = run(*words, stdin=text(SIGNED))
    assert (code, json.loads(out)["answers_command"]) == (0, True)
    another = sign_receipt(NODE, replace(SAID, command_hash=bytes(32)))
    code, out, err = run(*words, stdin=text(another))
    assert (code, out) == (1, "")
    assert "about another command" in err


@pytest.mark.parametrize(
    ("signer", "change"),
    [
        (STRANGER, {"node": node_id_of(STRANGER.public)}),
        (NODE, {"session": "another"}),
        (NODE, {"mesh": "another"}),
    ],
)
def test_a_receipt_that_is_not_the_owners_word_about_the_session_answers_no_command(
    run, tmp_path, signer, change
):
    file = tmp_path / "command"
    file.write_bytes(pack(COMMAND.to_list()))
    said = text(sign_receipt(signer, replace(SAID, **change)))
    code, out, err = run("receipt", "verify", "-", "--command", str(file), stdin=said)
    assert (code, out) == (1, "")
    assert "genuine, but it is about another target" in err


def flipped(signed: Signed) -> Signed:
    return replace(signed, payload=signed.payload.replace(b"applied", b"refused"))


@pytest.mark.parametrize(
    "forged",
    [
        flipped(SIGNED),
        replace(SIGNED, signature=bytes(64)),
        sign_receipt(STRANGER, SAID),
        NODE.sign("command", {"node": NODE_ID}),
    ],
)
def test_a_forged_receipt_is_exit_1(run, forged):
    code, out, err = run("receipt", "verify", "-", stdin=text(forged, kind="receipt"))
    assert (code, out) == (1, "")
    assert "not genuine" in err


@pytest.mark.parametrize(
    "given",
    [
        "",
        "hello",
        "{}",
        "{" * 5000,
        '{"receipt": 5}',
        '{"receipt": null}',
        b64encode(b"\xc1").decode(),
        b64encode(pack([1, 2, 3])).decode(),
        b64encode(b"\x91" * 5000).decode(),
        text(COMMAND),
        text(NODE.sign("receipt", {"no": "node"})),
        text(NODE.sign("receipt", {"node": 5})),
        text(NODE.sign("receipt", {"node": "abc"})),
        "A" * (300 << 10),
    ],
)
def test_what_is_no_receipt_is_a_usage_error(run, given):
    code, out, err = run("receipt", "verify", "-", stdin=given)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert "Traceback" not in err


def test_a_file_that_is_missing_or_none_is_told(run, tmp_path):
    assert run("receipt", "verify", str(tmp_path / "none"))[0] == 3
    directory = tmp_path / "Upper"
    directory.mkdir()
    code, _, err = run("receipt", "verify", str(directory))
    assert (code, err) == (2, f"error: cannot read {str(directory)!r}: is a directory\n")
    assert run("receipt", "verify", "a\0b")[0] == 2


def test_a_command_that_is_none_is_a_usage_error(run, tmp_path):
    file = tmp_path / "command"
    file.write_bytes(b"nonsense")
    code, _, err = run("receipt", "verify", "-", "--command", str(file), stdin=text(SIGNED))
    assert (code, "not a command" in err) == (2, True)
