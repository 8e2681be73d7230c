"""The line that starts a node again: what it was started with, and what is asked for now."""

import json
from pathlib import Path

import pytest

from meshnode.client.home import Home
from meshnode.node.configuration import again
from meshnode.node.configuration.options import HttpFlags, UpOptions


@pytest.fixture
def home(tmp_path, monkeypatch):
    found = Home(tmp_path / "home")
    found.run.mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("SESSION_MESH_HOME", str(found.path))
    return found


def test_all_flags_are_told_again_as_they_are_typed(home, tmp_path):
    chain, key, config = (str(tmp_path / name) for name in ("chain.pem", "key.pem", "c.yaml"))
    http = HttpFlags("off", True, chain, key, ("h1", "h2"), ("https://o",), "off")
    for file in (chain, key, config):
        Path(file).touch()
    labels = {"a": "b c", "d": "e"}
    before = UpOptions(
        "127.0.0.1:7", "h:8", ("s:1", "s:2"), False, labels, "anna", Path(config), http=http
    )
    again.keep(home, before)
    assert again.hint(home, UpOptions(listen="[::]:7707")).partition(" && ")[2] == (
        "session-mesh up --detach --name anna --listen '[::]:7707' --advertise h:8 --seed s:1"
        " --seed s:2 --no-mdns --label 'a=b c' --label d=e"
        f" --config {config} --http off --http-tls --http-tls-cert {chain}"
        f" --http-tls-key {key} --http-host h1 --http-host h2 --http-origin https://o --metrics off"
    )


def test_what_is_asked_for_now_goes_before_what_was_and_what_names_more_adds_up(home):
    again.keep(home, UpOptions(seeds=("s:1",), mdns=False, labels={"a": "1"}))
    line = again.hint(home, UpOptions(seeds=("s:2", "s:1"), mdns=True, labels={"a": "2"}))
    assert line.endswith("up --detach --seed s:1 --seed s:2 --mdns --label a=2")


def test_without_a_flag_nothing_is_asked_for(home):
    again.keep(home, UpOptions("127.0.0.1:7"))
    assert again.hint(home, UpOptions(json_ready=True)) == ""


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (HttpFlags("127.0.0.1:1"), HttpFlags(metrics="127.0.0.1:1")),
        (HttpFlags("0.0.0.0:1", tls=True), HttpFlags(tls=False)),
        (HttpFlags(certificate="chain.pem", key="key.pem"), HttpFlags("on")),
    ],
)
def test_no_line_is_offered_that_would_leave_the_node_down(home, before, now):
    again.keep(home, UpOptions(http=before))
    assert again.hint(home, UpOptions(http=now)) == ""


@pytest.mark.parametrize("switch", [True, False])
def test_of_two_ways_to_a_certificate_the_newer_is_taken(home, switch):
    files = HttpFlags(certificate="chain.pem", key="key.pem")
    again.keep(home, UpOptions(http=files))
    line = again.hint(home, UpOptions(http=HttpFlags(tls=switch)))
    assert line.endswith(f"up --detach --{'' if switch else 'no-'}http-tls")
    again.keep(home, UpOptions(http=HttpFlags(tls=switch)))
    line = again.hint(home, UpOptions(http=files))
    assert line.endswith("up --detach --http-tls-cert chain.pem --http-tls-key key.pem")


@pytest.mark.parametrize("kept", [None, "", "[]", '{"home": 1}', "\x00", "[" * 100_000])
def test_without_what_was_kept_the_line_has_what_is_asked_for(home, kept):
    if kept is not None:
        (home.run / "up.json").write_text(kept)
    line = again.hint(home, UpOptions(name="berta"))
    assert line.endswith("session-mesh up --detach --name berta")


@pytest.mark.parametrize(
    ("field", "kept"),
    [
        ("labels", None),
        ("labels", ["a"]),
        ("seeds", [["a"]]),
        ("name", ["x"]),
        ("listen", {"a": 1}),
        ("http", {"hosts": [1], "origins": []}),
    ],
)
def test_what_was_kept_in_another_shape_is_left_out(home, field, kept):
    again.keep(home, UpOptions())
    path = home.run / "up.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: kept}))
    line = again.hint(home, UpOptions(name="berta" if field != "name" else None, mdns=False))
    assert line.endswith(("up --detach --name berta --no-mdns", "up --detach --no-mdns"))


def test_a_home_that_is_not_the_usual_one_is_named(home, monkeypatch):
    monkeypatch.setenv("SESSION_MESH_HOME", str(home.path.parent / "other"))
    named = f"session-mesh --home {home.path}"
    line = again.hint(home, UpOptions(mdns=True))
    assert line.endswith(f"{named} down --keep-sessions && {named} up --detach --mdns")
