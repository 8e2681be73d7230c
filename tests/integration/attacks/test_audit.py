"""Attacks on the audit log: on its file, and on the heads that others have seen of it."""

import shutil
import sqlite3
from random import Random

import pytest
from auditing import KINDS, NODE, NODE_ID, OTHER, Log
from msgspec.structs import replace

from meshnode.app.audit.witnessing import ACCUSED_MAX, Seen, Witness
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.core.commands.audit import (
    AUDIT,
    Wrong,
    contradiction,
    dropped_detail,
    head_from_signed,
    head_to_row,
)
from meshnode.core.feeds.heads import Head
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import NodeId, node_id_of
from meshnode.core.keys import Signed
from meshnode.core.membership.genesis import Genesis
from meshnode.core.membership.members import ONLY_ROW
from meshnode.store import heads

# The file.


@pytest.mark.parametrize(
    "change",
    [
        "kind = 'nothing'",
        "at_ms = at_ms + 1",
        "agent = 'other'",
        "owner = 'mallory'",
        "actor = 'somebody else'",
        "outcome = 'refused'",
        "detail = x'ff'",
        "detail = hex(zeroblob(4000))",
        "at_ms = 'never'",
        "hash = zeroblob(32)",
        "hash = 'short'",
    ],
)
def test_a_record_whose_field_was_edited_is_named(log, change):
    log.edit(f"UPDATE audit SET {change} WHERE seq = 5")
    wrong = log.verdict()
    assert (wrong.seq, "edited" in wrong.what) == (5, True)


def test_a_record_removed_from_the_middle_is_named(log):
    log.edit("DELETE FROM audit WHERE seq = 5")
    assert log.verdict() == Wrong(5, "it was removed: 6 follows 4")


def test_records_removed_from_the_beginning_are_named(log):
    log.edit("DELETE FROM audit WHERE seq <= 3")
    assert log.verdict().seq == 1


def test_a_removed_record_whose_followers_were_renumbered_is_named(log):
    log.edit("DELETE FROM audit WHERE seq = 5", "UPDATE audit SET seq = seq - 1 WHERE seq > 5")
    assert log.verdict().seq == 5


def test_two_records_that_changed_places_are_named(log):
    log.edit(
        "UPDATE audit SET seq = -1 WHERE seq = 4",
        "UPDATE audit SET seq = 4 WHERE seq = 7",
        "UPDATE audit SET seq = 7 WHERE seq = -1",
    )
    assert log.verdict().seq == 4


def test_a_record_that_was_put_in_is_named(log):
    seen = log.head()
    columns = "at_ms, kind, session, agent, owner, command, actor, action, outcome, detail, hash"
    log.edit(f"INSERT INTO audit SELECT 11, {columns} FROM audit WHERE seq = 10")
    assert log.verdict(seen).seq == 11


def test_a_tail_that_was_cut_off_is_found_by_a_head(log):
    seen = log.head()
    log.edit("DELETE FROM audit WHERE seq > 7")
    assert log.verdict() is None  # the file alone cannot say it
    assert log.verdict(seen).seq == 8


def test_a_log_that_was_emptied_is_found_by_a_head(log):
    seen = log.head()
    log.edit("DELETE FROM audit")
    assert (log.verdict(), log.verdict(seen).seq) == (None, 1)


def test_a_log_rewritten_whole_and_consistently_is_found_by_the_heads_of_others(log, tmp_path):
    early, late = log.head(), None
    log.note("more")
    late = log.head()
    forged = Log(tmp_path / "forged.db")
    forged.note(*KINDS, "more", agent="builder", detail="as it never was")
    assert forged.verdict() is None
    assert forged.verdict(early, late) == Wrong(
        10, "the log was rewritten from some record after 0 on"
    )
    forged.close()


def test_a_rewritten_end_is_placed_between_the_heads_that_were_seen(log, tmp_path):
    early = log.head()
    log.note("more", "and more")
    late = log.head()
    forged = Log(tmp_path / "forged.db")
    forged.note(*KINDS, agent="builder", detail="as it was")
    forged.note("less", "and less")
    wrong = forged.verdict(early, late)
    assert (wrong.seq, "after 10" in wrong.what) == (12, True)
    forged.close()


def test_another_log_in_the_place_of_the_first_is_found_by_a_head(log, tmp_path):
    other = Log(tmp_path / "other.db", number=8)
    other.note(*KINDS, agent="builder", detail="as it was")
    assert other.verdict() is None
    assert other.verdict(log.head()).seq == 1
    other.close()


def test_another_nodes_log_does_not_pass_for_ones_own(log, tmp_path):
    other = Log(tmp_path / "other.db", key=OTHER)
    other.note(*KINDS)
    other.close()
    as_mine = Log(tmp_path / "other.db")
    assert as_mine.verdict().seq == 1
    as_mine.close()


def test_an_old_copy_that_was_put_back_is_found_at_once_and_when_it_goes_on(log, tmp_path):
    log.close()
    shutil.copy(log.path, tmp_path / "backup.db")
    log.open()
    log.note("what shall be unseen")
    seen = log.head()
    log.close()
    shutil.copy(tmp_path / "backup.db", log.path)
    log.open()
    assert log.verdict(seen).seq == 11
    log.note("something else")
    proof = contradiction(head_from_signed(seen), head_from_signed(log.head()))
    assert proof == Wrong(11, "record 11 has two hashes, both signed by the node")


def test_what_was_removed_is_not_excused_by_a_record_that_says_so(log):
    """Whoever writes `records_dropped` by hand has to chain it, and the heads know better."""
    seen = log.head()
    detail = dropped_detail(4, log.kept()[3].hash)
    log.edit(
        "DELETE FROM audit WHERE seq <= 4",
        f"UPDATE audit SET kind = 'records_dropped', detail = '{detail}' WHERE seq = 8",
    )
    assert log.verdict(seen).seq == 8


def test_a_row_put_in_the_way_of_the_next_record_does_not_stop_the_log(log):
    with sqlite3.connect(log.path) as connection:
        connection.execute("INSERT INTO audit SELECT 11, 0, '', '', '', '', '', '', '', '', '', ''")
    connection.close()
    log.note("next")
    assert log.verdict(log.head()) is None
    assert log.kept()[-1].record.kind == "next"


def test_a_table_that_was_dropped_stops_no_other_write(log):
    troubles = []
    log.rider.on_trouble = troubles.append
    with sqlite3.connect(log.path) as connection:
        connection.execute("DROP TABLE audit")
    connection.close()
    log.note("unwritten")
    log.database.run_now(heads.keep, [])
    assert troubles
    assert "no such table" in troubles[0]
    assert log.rider.waiting


# The heads.


def seen_of(log: Log, seq: int, at_s: float = 1.0) -> Seen:
    signed = log.head()
    return Seen(head_from_signed(signed), signed, at_s, Head(1, seq))


class Watching:
    """A witness, and whom it has accused."""

    def __init__(self, newest=None) -> None:
        self.accused: list[tuple[NodeId, Wrong]] = []
        self.witness = Witness(newest or {}, lambda *said: self.accused.append(said))


def test_two_heads_of_one_record_are_flagged_and_the_first_stays(log, tmp_path):
    watching = Watching()
    first = seen_of(log, 1)
    watching.witness.see(first)
    forged = Log(tmp_path / "forged.db")
    forged.note(*KINDS, detail="as it never was")
    second = seen_of(forged, 2)
    watching.witness.see(second)
    assert watching.accused == [
        (NODE_ID, Wrong(10, "record 10 has two hashes, both signed by the node"))
    ]
    log.database.run_now(heads.keep, watching.witness.take())
    kept = log.database.run_now(heads.of_node, NODE_ID)
    assert [one.signed for one in kept if not one.trouble] == [first.signed]
    assert {one.signed for one in kept if one.trouble} == {first.signed, second.signed}
    assert kept[0].head == first.head
    forged.close()


def test_a_log_that_goes_back_is_flagged_and_old_news_of_a_relay_is_not(log):
    early = seen_of(log, 1)
    log.note("more")
    late = seen_of(log, 2)
    watching = Watching({NODE_ID: late})  # as after a restart
    watching.witness.see(early)
    assert watching.accused == []
    watching.witness.see(replace(early, place=Head(2, 1)))
    assert [wrong.seq for _, wrong in watching.accused] == [11]


def test_a_liar_cannot_fill_a_witness_with_proofs(log, tmp_path):
    watching = Watching()
    forged = Log(tmp_path / "forged.db")
    for number in range(2, 202, 2):
        log.note("a")
        forged.note("b")
        for one, log_of in enumerate((log, forged)):
            watching.witness.see(seen_of(log_of, number + one))
    kept = watching.witness.take()
    assert len([one for one in kept if one.trouble]) <= 2 * ACCUSED_MAX
    log.database.run_now(heads.keep, kept)
    assert len(log.database.run_now(heads.of_node, NODE_ID)) <= heads.TROUBLES_MAX * 2 + 16
    forged.close()


def test_a_head_forged_for_another_node_is_shown_to_nobody(log):
    """A feed carries what its writer signed; a head inside it bears its own signature too."""
    genesis = Genesis((NODE.public,), 1, "heads", bytes(16))
    mesh = Mesh(genesis, Self(NODE, 1, Random(1)))
    feed = OwnFeed(OTHER, genesis.mesh_id, genesis.limits, 1)
    other = node_id_of(OTHER.public)
    mesh.replication.replicas[other] = feed
    unsigned = log.head()
    for row in (
        head_to_row(unsigned),  # genuine, of another node
        head_to_row(Signed(unsigned.type, unsigned.payload, bytes(64))),
        b"",
        b"\xc1",
        head_to_row(OTHER.sign("audit_head", {"node": other, "log": 1, "seq": (1 << 64) - 1})),
    ):
        feed.write(AUDIT, ONLY_ROW, row)
        feed.flush(1.0)
        assert mesh.tables.audit_head(other) is None
    assert mesh.tables.audit_head(NODE_ID) is None
