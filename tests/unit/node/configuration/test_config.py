"""The configuration of a node, and the sentences that its mistakes earn."""

from pathlib import Path

import pytest

from meshnode.app.sessions.directions import Direction
from meshnode.client.documents import parse_document
from meshnode.core.control.settings import Budget, Terms
from meshnode.core.errors import NotFoundError, UsageError
from meshnode.node.configuration.config import config_in, load_config
from meshnode.node.configuration.configured import Config

FULL = """
node: 0123
listen: 0.0.0.0:7707
advertise: "[2001:db8::1]:7707"
seeds: [192.0.2.7:7707, berta.example:7707]
labels: {room: 007, enabled: no, empty: ""}
on_exit: close
mdns: off
ingest:
  - source: higress
    path: /var/log/access.log
    session_key: agent-1
    refresh_interval: 2m
    messages: true
  - source: higress
    path: other.log
"""


def parse_config(text: str) -> Config:
    return config_in(parse_document(text.encode(), "config.yaml"))


def failure(text: str) -> str:
    with pytest.raises(UsageError) as raised:
        parse_config(text)
    return raised.value.message


def test_every_key_is_read():
    config = parse_config(FULL.replace(', empty: ""', ""))
    assert config.listen == "0.0.0.0:7707"
    assert config.advertise == "[2001:db8::1]:7707"
    assert config.seeds == ("192.0.2.7:7707", "berta.example:7707")
    assert config.on_exit == "close"
    assert config.mdns is False
    first, second = config.ingest
    assert (first.source, first.path, first.session_key) == (
        "higress",
        "/var/log/access.log",
        "agent-1",
    )
    assert (first.refresh_interval_s, second.refresh_interval_s) == (120.0, 1.0)
    assert (first.messages, second.messages) == (True, False)
    assert config.warnings == ()


def test_directions_are_a_template_or_a_neighbour():
    text = """
directions:
  north: look north, {agent_id}
  west: {handoff: berta/builder}
  south: {template: "ask {neighbour}", handoff: builder}
"""
    config = parse_config(text)
    assert config.directions["north"] == Direction("look north, {agent_id}")
    assert config.directions["west"] == Direction("", "berta/builder")
    assert config.directions["south"] == Direction("ask {neighbour}", "builder")
    assert config.warnings == ()
    config = parse_config("directions: {stop: {mode: now}, later: {template: x, mode: after}}")
    assert config.directions["stop"] == Direction("direction: {direction}", mode="now")
    assert config.directions["later"] == Direction("x", mode="after")
    assert config.warnings == ()
    assert "handoff" in failure("directions: {up: {template: '{neighbour}'}}")
    with pytest.raises(UsageError) as wrong:
        parse_config("directions:\n  up: {mode: loud}")
    said = wrong.value.message + wrong.value.hint
    assert all(word in said for word in ("config.yaml:2", "mode", "loud", "soft, now, after")), said
    assert "tempalte" in failure("directions: {up: {tempalte: x}}")


@pytest.mark.parametrize(
    ("text", "listen", "certificate"),
    [
        ("http: off", "", ""),
        ("http: on", "127.0.0.1:8888", ""),
        ("http: 127.0.0.1:1", "127.0.0.1:1", ""),
        ("http: {hosts: [a.example]}", "127.0.0.1:8888", ""),
        ("http: {listen: 0.0.0.0:1, tls: on}", "0.0.0.0:1", "own"),
        ("http: {tls_cert: c.pem, tls_key: k.pem}", "127.0.0.1:8888", "c.pem"),
    ],
)
def test_http_is_on_off_an_address_or_a_map(text, listen, certificate):
    http = parse_config(text).http
    named = {"": "", "own": "own"}.get(certificate, f"/etc/mesh/{certificate}")
    assert http.located(Path("/etc/mesh/config.yaml")).certificate == named
    assert (http.listen, http.certificate) == (listen, certificate)


@pytest.mark.parametrize(
    "text",
    [
        "http: sometimes",
        "http: {port: 1}",
        "metrics: 9090",
        "http: []",
        "http: {hosts: ['mesh.example.com:8443']}",
        "http: {hosts: ['https://mesh.example.com']}",
        "http: {hosts: ['*.example.com']}",
        "http: {hosts: ['m\u00e4rz.example.com']}",
        "http: {hosts: ['']}",
    ],
)
def test_http_that_makes_no_sense_is_refused_with_its_line(text):
    assert failure(text).startswith("config.yaml:1: ")


def test_hosts_are_kept_as_requests_are_compared_with_them():
    given = "http: {hosts: ['[::1]', '2001:DB8:0::1', Mesh.Example.COM., 192.0.2.1, 'fe80::1%lo']}"
    named = ("::1", "2001:db8::1", "mesh.example.com", "192.0.2.1", "fe80::1")
    assert parse_config(given).http.hosts == named


def test_scalars_are_taken_as_written():
    config = parse_config("node: 0123\nlabels: {room: 007, enabled: no, at: 2026-11-20, hex: 0x1f}")
    assert config.node == "0123"
    assert config.labels == {"room": "007", "enabled": "no", "at": "2026-11-20", "hex": "0x1f"}


@pytest.mark.parametrize("text", ["", "# nothing\n", "labels:\nseeds:\nnode: ~\n"])
def test_nothing_written_is_the_default(text):
    assert parse_config(text) == Config()


def test_a_misspelt_key_is_named_with_its_line_and_what_was_meant():
    message = failure("node: a\n\nlistne: 0.0.0.0:1\n")
    assert message == 'config.yaml:3: unknown key "listne" (did you mean "listen"?)'


def test_a_misspelt_key_of_a_source_is_named_too():
    message = failure("ingest:\n  - source: higress\n    pth: x\n")
    assert message == 'config.yaml:3: unknown key "pth" (did you mean "path"?)'


def test_keys_of_later_versions_are_warned_about_and_not_refused():
    config = parse_config("sessions: {max: 3}\nnotify: []\nnode: a\n")
    assert config.node == "a"
    assert config.warnings == (
        'config.yaml:1: "sessions" is not supported by this version yet',
        'config.yaml:2: "notify" is not supported by this version yet',
    )


def test_budgets_of_one_node_are_read_as_the_command_line_writes_them():
    one = "{name: team, limit: 0.5usd, per: day, owner: olga, warn: 50%, then: kill}"
    config = parse_config(f"budgets:\n  - {one}\n  - {{name: all, limit: 5Mtok, per: month}}\n")
    assert config.budgets == (
        Budget("team", Terms(5 * 10**8, "nusd", "day", "kill", 50, owner="olga")),
        Budget("all", Terms(5 * 10**6, "tokens", "month", "suspend")),
    )


@pytest.mark.parametrize(
    ("one", "said"),
    [
        ("{limit: 1usd, per: day}", 'needs "name"'),
        ("{name: a, per: day}", 'needs "limit"'),
        ("{name: a, limit: 1eur, per: day}", "not a limit: '1eur'"),
        ("{name: a, limit: -1usd, per: day}", "not a limit"),
        ("{name: a, limit: 1usd, per: week}", '"per" cannot be "week"'),
        ("{name: a, limit: 1usd, per: day, warn: 101%}", "not a share"),
        ("{name: a, limit: 1usd, per: day, them: kill}", 'unknown key "them"'),
        ("{name: a, limit: 1usd, per: day, spec: 'b,c'}", "no comma in its name: 'b,c'"),
    ],
)
def test_a_budget_that_is_none_is_refused_with_its_line(one, said):
    message = failure(f"node: a\nbudgets:\n  - {one}\n")
    assert message.startswith("config.yaml:3: ")
    assert said in message


def test_a_budget_is_named_once():
    one = "{name: a, limit: 1usd, per: day}"
    assert "one name twice" in failure(f"budgets:\n  - {one}\n  - {one}\n")


def test_a_source_of_later_versions_is_passed_over_with_a_warning():
    config = parse_config("ingest:\n  - {source: otlp, path: x}\n")
    assert config.ingest == ()
    assert config.warnings == ('config.yaml:2: source "otlp" is not supported by this version yet',)


def test_transcripts_need_no_path(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", "/a,/b")
    config = parse_config("ingest:\n  - {source: claude}\n  - {source: claude, path: x}\n")
    assert [one.path for one in config.ingest] == ["/a", "/b", "x"]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("listen: 7707", '1: "listen" should be host:port'),
        ("listen: a:70000", '1: "listen" should be host:port'),
        ("seeds: a:1", '1: "seeds" should be a list'),
        ("seeds:\n - a:1\n - b", '3: "seeds" should be host:port'),
        ("labels: [a]", '1: "labels" should be a map'),
        ("labels: {a: [b]}", '1: "labels.a" should be a text'),
        (
            "labels:\n" + "".join(f"  k{one}: v\n" for one in range(65)),
            '66: no room for "labels.k64"',
        ),
        ('node: ""', '1: "node" should be a text'),
        ("ingest: [{source: higress, path: x, refresh_interval: ''}]", "should be a text"),
        ("mdns: maybe", '1: "mdns" should be true or false'),
        ("on_exit: kep", 'did you mean "keep"'),
        ("ingest: [{source: higress}]", 'needs "path"'),
        ("ingest: [{source: higress, path: x, refresh_interval: soon}]", "not a duration"),
        ("ingest: [{source: higress, path: x, refresh_interval: 0s}]", "1s or more"),
        ("ingest: [{source: codex, path: x, messages: true}]", "not kept of codex"),
        ("ingest: [{source: higress, path: x, messages: some}]", "true or false"),
        ("node: a\nnode: b", '2: key "node" stands twice'),
        ("- a", "should be a map"),
        ("node: [", "config.yaml:1: "),
        ("? [a]\n: b", "a key should be a text"),
        ("labels: &a {x: y}\nnode: *a", "2: aliases are not allowed"),
        ("labels: " + "[" * 100_000, "nested deeper"),
        ("node: \x07", "config.yaml: "),
        ("a" * (1 << 20) + "aa", "larger than"),
    ],
)
def test_what_is_off_is_said_with_its_place_once(text, part):
    said = failure(text)
    assert part in said
    assert said.count("config.yaml:") <= 1


@pytest.mark.parametrize("word", ["true", "True", "TRUE", "Yes", "ON"])
def test_a_flag_is_written_as_yaml_lets_one_write_it(word):
    assert parse_config(f"mdns: {word}").mdns is True


def test_a_file_is_named_by_its_own_name(tmp_path):
    path = tmp_path / "mesh.yaml"
    path.write_text("nod: a\n")
    with pytest.raises(UsageError, match=r"^mesh\.yaml:1: "):
        load_config(path)


def test_a_missing_file_is_not_found(tmp_path):
    with pytest.raises(NotFoundError) as missed:
        load_config(tmp_path / "none.yaml")
    assert missed.value.hint == "name a file that is there"


def test_bytes_that_are_no_utf_8_are_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(b"node: \xff")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_config(path)


@pytest.mark.parametrize(
    "text", ["advertise: 0.0.0.0:80", "advertise: '[::]:80'", "seeds: ['h:0']"]
)
def test_an_address_that_can_be_nobodys_is_refused_with_its_line(text):
    said = failure(text)
    assert said.startswith("config.yaml:1: ")
    assert "nobody" in said
