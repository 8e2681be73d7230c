"""A database that is not what it was."""

import os
import signal
import subprocess

import pytest
from e2e.bad_input.refusal import LOCAL, refused
from e2e.fleet import wait_until


def in_the_middle(raw: bytes) -> bytes:
    third = len(raw) // 3
    return raw[:third] + os.urandom(third) + raw[2 * third :]


DAMAGES = {
    "random bytes in the middle": in_the_middle,
    "no database": lambda raw: os.urandom(len(raw)),
    "truncated": lambda raw: raw[: len(raw) // 2 + 100],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_database_is_left_alone_and_peers_return_what_it_held(fleet, damage):
    anna, berta = fleet.mesh("anna", "berta")
    berta.call("run", "--detach", "--agent-id", "survivor", "--", "cat")
    wait_until(lambda: "survivor" in anna.sessions())
    before = berta.json("status")
    berta.end()
    database = berta.home / "state.db"
    damaged = damage(database.read_bytes())
    assert damaged != database.read_bytes()
    database.write_bytes(damaged)
    for words in (("up", *LOCAL), ("list",)):
        move = f"mkdir {database}.damaged && mv {database} {database}-* {database}.damaged"
        refused(berta, 1, (str(database), "damaged", "down --keep-sessions", move), *words)
        assert database.read_bytes() == damaged
    subprocess.run(["sh", "-c", move], check=True)
    berta.up(*LOCAL)
    wait_until(lambda: berta.sessions().get("survivor", {}).get("alive"))
    wait_until(lambda: set(berta.states().values()) == {"alive"})
    after = berta.json("status")
    for name in ("node_id", "name", "mesh_id", "role"):
        assert after[name] == before[name]
    wait_until(lambda: anna.states() == {"anna": "alive", "berta": "alive"})
    wait_until(lambda: anna.call("steer", "survivor", "still yours?").code == 0)
    assert anna.json("kill", "survivor", "--yes")["outcome"] == "applied"


def test_a_damaged_database_is_not_touched_by_what_its_journal_still_holds(home):
    home.up(*LOCAL)
    home.call("run", "--agent-id", "past", "--", "true")
    home.end(signal.SIGKILL)
    database = home.home / "state.db"
    assert (home.home / "state.db-wal").stat().st_size > 0
    damaged = in_the_middle(database.read_bytes())
    database.write_bytes(damaged)
    refused(home, 1, ("damaged", "mv "), "up", *LOCAL)
    refused(home, 1, ("damaged", "mv "), "list")
    assert database.read_bytes() == damaged


def test_a_mesh_of_one_whose_database_is_lost_still_has_its_admin(home):
    (home.home / "state.db").unlink()
    home.up(*LOCAL)
    status = home.json("status")
    assert (status["name"], status["role"]) == ("anna", "admin")
    assert home.call("invite").code == 0
