"""`load-config`: what it takes over is what it was given, wherever that came from."""

import json
import os
from threading import Thread

import pytest

CONFIG = b"labels: {a: b}\nmdns: off\n"
SELECTION = b"sessions: [{filter: alive}]\n"


@pytest.mark.parametrize(
    ("given", "kept_in"), [(CONFIG, "config.yaml"), (SELECTION, "selection.yaml")]
)
def test_what_a_pipe_brings_is_what_is_kept(run, tmp_path, given, kept_in):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = Thread(target=pipe.write_bytes, args=(given,))
    writer.start()
    code, out, err = run("load-config", str(pipe), "-o", "json")
    writer.join()
    assert (code, err) == (0, "")
    assert (json.loads(out)["config"] is None) == (kept_in == "selection.yaml")
    assert (tmp_path / "home" / kept_in).read_bytes() == given


def test_how_many_entries_choose_is_said(run, tmp_path):
    for entries, said in (
        ("{filter: all}", "1 entry selects"),
        ("{id: a}, {id: b}", "2 entries select"),
    ):
        file = tmp_path / "new.yaml"
        file.write_text(f"sessions: [{entries}]")
        assert f"list shows only what {said} from now on" in "".join(
            run("load-config", str(file))[1:]
        )


def test_without_an_entry_list_shows_all(run):
    code, out, _ = run("load-config", "-", stdin="sessions: []\n")
    assert (code, out) == (0, "list shows all from now on: no entry selects\n")


def test_the_configuration_before_is_kept_beside_the_new_one(run, tmp_path):
    file = tmp_path / "new.yaml"
    for given in (CONFIG, b"mdns: on\n"):
        file.write_bytes(given)
        assert run("load-config", str(file))[0] == 0
    assert (tmp_path / "home" / "config.yaml").read_bytes() == b"mdns: on\n"
    assert (tmp_path / "home" / "config.yaml.old").read_bytes() == CONFIG


def test_a_dash_reads_stdin(run, tmp_path):
    assert run("load-config", "-", stdin=CONFIG.decode())[0] == 0
    assert (tmp_path / "home" / "config.yaml").read_bytes() == CONFIG
    code, _, err = run("load-config", "-", stdin="labels: {a\n")
    assert code == 2
    assert "stdin:" in err
    assert (tmp_path / "home" / "config.yaml").read_bytes() == CONFIG


@pytest.mark.parametrize(
    "given", [b"http: 0.0.0.0:28890\n", b"http: {listen: on, tls_cert: /nowhere.pem}\n"]
)
def test_what_no_node_would_start_with_is_not_taken_over(run, tmp_path, given):
    file = tmp_path / "new.yaml"
    file.write_bytes(CONFIG)
    assert run("load-config", str(file))[0] == 0
    file.write_bytes(given)
    checked = run("config", "check", str(file))
    assert (checked[0], run("load-config", str(file))) == (2, checked)
    assert (tmp_path / "home" / "config.yaml").read_bytes() == CONFIG
    assert not (tmp_path / "home" / "config.yaml.old").exists()
