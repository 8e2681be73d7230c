"""What docs/keys.md says about lost keys, done: an operator's, every admitter's, the root's."""

import shutil
import signal

import pytest
from e2e.fleet import Fleet, wait_until

WORDS = {"SESSION_MESH_ROOT_PASSPHRASE": "one two three four"}
ALONE = ("--listen", "127.0.0.1:0", "--no-mdns")


@pytest.mark.timeout(300)
def test_a_mesh_outlives_the_loss_of_each_key(fleet):
    anna, berta, carl, dora = (fleet.node(name) for name in ("anna", "berta", "carl", "dora"))
    root = str(fleet.directory / "root.pem")
    anna.json("init", "--name", "anna")
    exported = anna.json("root", "export", root, "--remove", env=WORDS)
    assert (exported["removed"], (anna.home / "root.key").exists()) == (True, False)
    anna.up(*ALONE)
    fleet.join(anna, berta)
    berta.up(*ALONE)
    wait_until(lambda: berta.states() == {"anna": "alive", "berta": "alive"})

    # The only admin's operator key.
    for name in ("operator.key", "session-root.key"):
        (anna.home / name).unlink()
    refused = anna.call("invite", "-o", "json")
    assert refused.code == 4, refused.err
    key = anna.json("id", "--operator")["operator_key"]
    assert anna.call("invite", "-o", "json").code == 5, "a key without a role"
    admin = ("operator", "add", "--role", "admin", "--root", root)
    anna.json(*admin, "anna2", key, env=WORDS)
    assert anna.json("invite")["role"] == "operator"

    # The only machine that admits.
    anna.end(signal.SIGKILL)
    shutil.rmtree(anna.home)
    assert berta.call("invite", "-o", "json").code == 5
    berta.json("nodes", "promote", "berta", "--root", root, env=WORDS)
    berta.json(*admin, "bert", berta.json("id")["operator_key"], env=WORDS)
    assert Fleet.join(berta, dora, "--node-only")["role"] is None
    dora.up(*ALONE)
    wait_until(lambda: dora.states().get("berta") == "alive")

    # The root: a new mesh in a new home, and the others follow.
    assert dora.call("nodes", "promote", "dora", "--root", root + "x", "-o", "json").code == 3
    carl.json("init", "--name", "carl", "--mesh", "second")
    carl.up(*ALONE)
    berta.json("leave", "--yes")
    berta.process.wait(20)
    berta.process.stdout.close()
    berta.process = None
    joined = Fleet.join(carl, berta)
    assert (joined["mesh_name"], joined["name"]) == ("second", "berta")
    berta.up()
    wait_until(lambda: berta.states() == {"berta": "alive", "carl": "alive"})
    listed = berta.json("root", "list")
    assert [one["key_id"] for one in listed["roots"]] != [exported["key_id"]]


def test_an_export_of_one_root_deletes_no_other(fleet):
    """The last copy of a key would go for one that lies somewhere else."""
    work, play = fleet.node("work"), fleet.node("play")
    sealed, copy, again = (
        str(fleet.directory / name) for name in ("play.pem", "copy.pem", "again")
    )
    work.json("init", "--name", "work")
    play.json("init", "--name", "play", "--root-out", sealed, env=WORDS)
    held = (work.home / "root.key").read_bytes()
    export = ("root", "export", copy, "--root", sealed, "-o", "json")
    refused = work.call(*export, "--remove", env=WORDS)
    assert (refused.code, refused.error["code"]) == (7, "conflict")
    assert (work.home / "root.key").read_bytes() == held
    assert not (fleet.directory / "copy.pem").exists(), "refused before anything is written"
    assert work.json(*export[:-2], env=WORDS)["removed"] is False
    exported = play.json("root", "export", again, "--root", copy, "--remove", env=WORDS)
    assert exported["removed"] is False, "there was none"
