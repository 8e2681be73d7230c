"""Asking `doctor`, in tests."""

import contextlib
import socket

from e2e.fleet import Fleet, Node, wait_until


def free_port() -> int:
    """Return a port that is free together with the one after it, where joiners are served."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                second.bind(("127.0.0.1", port + 1))
                return port


def up(node: Node, *flags: str) -> str:
    address = f"127.0.0.1:{free_port()}"
    node.up("--listen", address, "--no-mdns", *flags)
    return address


def founded(fleet: Fleet, name: str, *flags: str) -> Node:
    node = fleet.node(name)
    node.json("init", "--mesh", f"{name}s", "--name", name)
    up(node, *flags)
    return node


def joined(fleet: Fleet, host: Node, guest: Node, *flags: str) -> str:
    fleet.join(host, guest)
    address = up(guest, *flags)
    wait_until(lambda: host.states().get(guest.name) == "alive", guest.name)
    return address


def asked(node: Node, code: int, *words: str) -> dict[str, dict]:
    answer = node.call("doctor", *words, "-o", "json")
    assert answer.code == code, answer
    assert answer.err == ""
    checks = {check["id"]: check for check in answer.json["checks"]}
    assert len(checks) == len(answer.json["checks"]), "ids are unique"
    for check in checks.values():
        assert set(check) == {"id", "ok", "detail", "fix"}
        assert check["detail"]
        assert check["ok"] is not False or check["fix"], check
    assert code == any(check["ok"] is False for check in checks.values())
    return checks


def failed(checks: dict[str, dict]) -> set[str]:
    return {check_id for check_id, check in checks.items() if check["ok"] is False}
