"""What a mesh at work leaves where others look: no form of any secret."""

import contextlib
import os
from base64 import b32encode, b64decode, b64encode, urlsafe_b64encode
from pathlib import Path

import pytest
from e2e.fleet import wait_until

SHOWS_ONE = ("invite", "keys")  # what prints a secret because it was asked to
AGENT = "import os, signal\nprint(os.environ.get('SESSION_API_KEY'), flush=True)\nsignal.pause()\n"


def forms(secret: bytes) -> dict[str, bytes]:
    """Return how bytes may be written down; padding and case aside."""
    return {
        "raw": secret,
        "hex": secret.hex().encode(),
        "HEX": secret.hex().upper().encode(),
        "base64": b64encode(secret).rstrip(b"="),
        "base64url": urlsafe_b64encode(secret).rstrip(b"="),
        "base32": b32encode(secret).rstrip(b"="),
        "base32, lower": b32encode(secret).rstrip(b"=").lower(),
        "repr": repr(secret)[2:-1].encode(),
    }


def found_in(places: dict[str, bytes], secrets: dict[str, bytes]) -> list[str]:
    return [
        f"{name} as {form} in {place}"
        for place, content in places.items()
        for name, secret in secrets.items()
        for form, written in forms(secret).items()
        if written in content
    ]


class Listener:
    """Calls the command line, and keeps what it said; only what was asked for is left out."""

    def __init__(self):
        self.said: dict[str, bytes] = {}

    def call(self, node, *words, **options):
        answer = node.start(*words, **options)
        shown = "" if words[0] in SHOWS_ONE else answer.out
        self.said[f"{node.name}: {' '.join(words)[:60]}"] = (shown + answer.err).encode()
        return answer


def processes(marker: str) -> dict[str, bytes]:
    """Return arguments and environment of every process that has the marker in either."""
    seen = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes()
            around = (entry / "environ").read_bytes()
            if marker.encode() in words + around:
                seen[f"argv of {entry.name} {words[:80]!r}"] = words
                seen[f"environment of {entry.name} {words[:80]!r}"] = around
    return seen


@pytest.mark.timeout(180)
def test_no_secret_is_left_in_logs_streams_arguments_or_environments(fleet):
    anna, berta = fleet.node("anna"), fleet.node("berta")
    listener = Listener()
    anna.json("init", "--mesh", "test", "--name", "anna")
    key_env = {"SESSION_API_KEY": "smk1_never-a-key", "SESSION_MESH_INVITE": "smj1_never-an-invite"}
    anna.up("--listen", "127.0.0.1:0", "--no-mdns")
    invite = anna.json("invite")["invite"]
    listener.call(berta, "join", "-", "--name", "berta", stdin=invite)
    listener.call(berta, "join", "-", "--verbose", stdin=invite)  # used: an error, with details
    listener.call(berta, "join", f"{invite[:-2]}zz", "--verbose")
    berta.up("--listen", "127.0.0.1:0", "--no-mdns")
    key = anna.json("keys", "new")["key"]
    env = {"SESSION_API_KEY": key, "SESSION_MESH_INVITE": invite, "OTHER": f"Bearer {key}"}
    command = ("python3", "-u", "-c", AGENT)
    started = listener.call(anna, "run", "--detach", "--agent-id", "a", "--", *command, env=env)
    assert started.code == 0, started.err
    wait_until(lambda: b"None" in listener_log(anna))
    for words in (("list",), ("steer", "a", "hello"), ("steer", "nobody", "x"), ("kill", "a")):
        for node in (anna, berta):
            listener.call(node, *words, "--verbose", env={"SESSION_API_KEY": key})
    listener.call(berta, "steer", "a", "x", "--verbose", env={"SESSION_API_KEY": key[:-3] + "aaa"})
    listener.call(anna, "doctor", "--verbose", env=key_env)

    secrets = {"the invite": invite.encode(), "the session key": key.encode()}
    secrets["the seed of the session key"] = _seed(key)
    for node in (anna, berta):
        for path in node.home.glob("*.key"):
            secrets[f"{node.name}'s {path.name}"] = b64decode(path.read_bytes())
    assert len(secrets) == 3 + 4 + 3

    places = processes(str(fleet.directory)) | listener.said
    assert any("supervise" in place for place in places), "the agent's supervisor was looked at"
    assert any("-u\\x00-c" in place for place in places), "and the agent"
    for path in fleet.directory.rglob("*"):
        is_secret = path.suffix == ".key" or path.name.startswith("state.db")
        if path.is_file() and not is_secret:
            places[str(path.relative_to(fleet.directory))] = path.read_bytes()
    assert {"anna/node.log", "berta/node.log", "anna.err"} <= set(places)
    assert found_in(places, secrets) == []
    assert found_in({"a check": b"x" + forms(_seed(key))["base32"]}, secrets), "it would be found"


def test_what_an_agent_was_started_with_is_kept_nowhere_by_the_mesh(fleet):
    nodes = anna, berta = fleet.mesh("anna", "berta")
    secret = "sk-live-4f1d"  # as many tools take theirs: with `ps` it is seen on this machine alone
    command = ("sh", "-c", "while :; do sleep 1; done", f"--api-key={secret}")
    assert anna.call("run", "--detach", "--agent-id", "a", "--", *command).code == 0
    wait_until(lambda: "a" in berta.sessions())
    assert berta.call("kill", "a", "--force").code == 0
    wait_until(lambda: berta.json("show", "a")["state"] == "killed")
    kept = [path for one in nodes for path in one.home.rglob("*") if path.is_file()]
    assert {"state.db", "state.json", "node.log"} <= {path.name for path in kept}
    assert [str(path) for path in kept if secret.encode() in path.read_bytes()] == []


def _seed(key: str) -> bytes:
    text = key.removeprefix("smk1_")
    raw = b64decode(text + "=" * (-len(text) % 4), altchars=b"-_")
    return raw[1:33]  # after the version


def listener_log(node) -> bytes:
    return b"".join(path.read_bytes() for path in node.home.glob("sessions/*/output.log"))
