"""A configuration that does not say what it means, and an address that cannot be listened on."""

import socket

import pytest
from e2e.bad_input.refusal import LOCAL, refused

CONFIGS = {
    "node: a\nlistn: 127.0.0.1:0\n": (2, 'unknown key "listn"', 'did you mean "listen"?'),
    "node: a\nseeds: 127.0.0.1:7707\n": (2, '"seeds" should be a list'),
    "labels: [a]\n": (1, '"labels" should be a map'),
    "labels:\n  a: [b]\n": (2, '"labels.a" should be a text'),
    "mdns: perhaps\n": (1, '"mdns" should be true or false'),
    "on_exit: kep\n": (1, '"on_exit" cannot be "kep"', 'did you mean "keep"?'),
    "node: a\nnode: b\n": (2, 'key "node" stands twice'),
    "node: &a b\nlabels: *a\n": (2, "aliases are not allowed", "write it out"),
    "labels:\n\ta: b\n": (2, "'\\t'"),
    "node: a\nlabels: {a: b\n": (3, "expected"),
    "ingest:\n  - source: higres\n    path: x\n": (2, '"source"', 'did you mean "higress"?'),
    "ingest:\n  - source: higress\n    pth: x\n": (3, '"pth"', 'did you mean "path"?'),
    "node: a\nlisten: nonsense\n": (2, '"listen" should be host:port', "nonsense"),
    "seeds: ['127.0.0.1:99999']\n": (1, '"seeds" should be host:port', "99999"),
    "ingest:\n  - source: higress\n    path: x\n    refresh_interval: 5 parsecs\n": (
        4,
        '"refresh_interval"',
        "5 parsecs",
        "15m",
    ),
    "labels: {a: b}\nnode: two words\n": (2, '"node"', "two words", "letters"),
    "just words\n": (1, "should be a map"),
}


@pytest.mark.parametrize(("text", "said"), CONFIGS.items(), ids=range(len(CONFIGS)))
def test_a_configuration_is_refused_by_file_line_and_key(stopped, text, said):
    line, *words = said
    (stopped.home / "config.yaml").write_text(text)
    message = refused(stopped, 2, tuple(words), "up", *LOCAL)
    assert message.startswith(f"config.yaml:{line}: ")


def test_a_configuration_that_is_no_text_is_named(stopped):
    (stopped.home / "config.yaml").write_bytes(b"node: \xff\xfe\n")
    for words in (("up", *LOCAL), ("up", "--detach", *LOCAL)):
        refused(stopped, 2, ("config.yaml", "UTF-8"), *words)


def test_a_configuration_that_does_not_exist_is_not_found(fleet):
    node = fleet.node("anna")
    for words in (("up", *LOCAL), ("up", "--detach", *LOCAL)):
        refused(node, 3, ("nowhere.yaml", "missing"), *words, "--config", "nowhere.yaml")
    assert not (node.home / "genesis.bin").exists(), "a mistake makes no mesh"


# An address that cannot be listened on.


@pytest.mark.parametrize("flag", ["--listen", "--advertise", "--seed"])
@pytest.mark.parametrize(
    "address", ["nonsense", "127.0.0.1:99999", ":7707", "127.0.0.1:", "127.0.0.1:x"]
)
def test_what_is_no_address_is_refused_before_a_mesh_is_made(fleet, flag, address):
    node = fleet.node("anna")
    refused(node, 2, (address, "HOST:PORT"), "up", "--no-mdns", flag, address)
    assert not (node.home / "genesis.bin").exists()


def test_an_ipv6_address_without_brackets_is_told_about_them(fleet):
    words = ("up", "--no-mdns", "--listen", "::1:7707")
    refused(fleet.node("anna"), 2, ("::1:7707", "in brackets"), *words)


def test_a_port_that_something_else_uses_is_named(home):
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        for words in (("up", "--no-mdns"), ("up", "--detach", "--no-mdns")):
            refused(home, 7, (address, "in use", "--listen"), *words, "--listen", address)
    home.up(*LOCAL)


@pytest.mark.parametrize("address", ["203.0.113.1:7707", "no-such-host.invalid:7707"])
def test_an_address_of_another_machine_is_named(home, address):
    refused(home, 7, (address, "not an address of this machine"), "up", "--listen", address)
