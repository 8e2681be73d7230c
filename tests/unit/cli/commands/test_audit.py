"""What `audit` asks, what it shows, and what it makes of a log that was changed."""

import csv
import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from unit.cli.doubles import SESSION, Mesh
from unit.core.commands.test_audit import LOG, NODE, NODE_ID, WHOLE, chained, head_of

from meshnode.client.errors import NotFoundError
from meshnode.core.commands.audit import AuditRecord, Kept, sign_head
from meshnode.core.ids import node_id_of
from meshnode.core.keys import Key
from meshnode.rpc.audit import part_to_wire
from meshnode.v1 import audit_service_pb2 as pb
from meshnode.wire.signed import signed_to_wire
from session_mesh.call import Call
from session_mesh.commands import audit

OTHER = Key(b"\2" * 32)
OTHER_ID = node_id_of(OTHER.public)


@dataclass
class Auditable(Mesh):
    """A mesh of two, of which this node's log is given."""

    kept: list[Kept] = field(default_factory=lambda: list(WHOLE))
    heads: list[pb.SeenHead] = field(default_factory=list)
    signs: list = field(default_factory=list)
    asked: list[pb.ReadAuditRequest] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)

    def __post_init__(self):
        common = {"journal_generation": 5, "state": "alive"}
        self.members = [
            {"node_id": NODE_ID, "name": "anna", "self": True, **common},
            {"node_id": OTHER_ID, "name": "berta", "self": False, **common},
        ]

    node_audit = property(lambda self: self)

    def call(self, method, request):
        return method(request)

    def stream(self, method, request, timeout_s):
        return method(request)

    def signed(self, order):
        self.signs.append(order)
        return signed_to_wire(OTHER.sign("command", {}))

    def ReadAudit(self, request):
        self.asked.append(request)
        owner = request.node_id or NODE_ID
        limit = request.limit or len(self.kept)
        yield part_to_wire(owner, LOG, self.kept[-limit:])

    def AcceptLog(self, request):
        self.accepted.append(request.node_id)
        return pb.AcceptLogResponse(forgotten=3)

    def ListHeads(self, request):
        heads = [one for one in self.heads if request.node_id or one.trouble]
        return pb.ListHeadsResponse(heads=heads, asked=2, heard=1)


def seen(head, key=NODE, trouble="") -> pb.SeenHead:
    return pb.SeenHead(head=signed_to_wire(sign_head(key, head)), seen_by=NODE_ID, trouble=trouble)


@pytest.fixture
def audited(monkeypatch, mesh):
    fake = Auditable()
    monkeypatch.setattr(Call, "mesh", lambda _: fake)
    return fake


def test_the_newest_records_are_shown_and_options_select(run, audited):
    code, out, _ = run(
        "audit",
        "--limit",
        "2",
        "--session",
        "abcdefgh",
        "--kind",
        "node_started",
        "--kind",
        "clock_jumped",
        "--since",
        "1h",
    )
    (request,) = audited.asked
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["SEQ", "6", "7"]
    assert (request.limit, list(request.kinds)) == (3, ["node_started", "clock_jumped"])
    assert request.session == SESSION["session_id"]
    assert request.since == "2026-11-19T23:00:00.000Z"
    assert audited.signs == []
    assert run("audit", "--limit", "2", "-q")[1] == "6\n7\n"


@pytest.mark.parametrize(("limit", "is_cut"), [(6, True), (7, False), (8, False)])
def test_records_that_are_left_out_are_told_as_those_of_a_list(run, audited, limit, is_cut):
    code, out, err = run("audit", "--limit", str(limit))
    assert (code, len(out.splitlines())) == (0, 1 + min(limit, 7))
    assert ("there are older ones than these" in err) == is_cut
    code, out, err = run("audit", "--limit", str(limit), "-o", "json")
    told = json.loads(out)
    assert [one["seq"] for one in told["records"]] == list(range(1, 8))[-limit:]
    assert (code, told.get("more"), err) == (0, True if is_cut else None, "")


def test_as_many_as_a_node_tells_at_most_may_not_be_all(run, audited, monkeypatch):
    monkeypatch.setattr(audit, "LIMIT_MAX", 7)  # nodes refuse to be asked for one more
    code, out, _ = run("audit", "--limit", "7", "-o", "json")
    assert (code, json.loads(out)["more"], audited.asked[-1].limit) == (0, True, 7)
    assert "there may be older ones than these 7: --session" in run("audit", "--limit", "7")[2]


def test_a_kind_that_is_never_recorded_is_a_slip(run, audited):
    code, out, err = run("audit", "--kind", "node_started", "--kind", "budget_enforce")
    assert (code, out, audited.asked) == (2, "", [])
    assert "'budget_enforce' (did you mean \"budget_enforced\"?)" in err
    assert "one of: node_started, node_stopped, " in err


def test_a_session_that_is_listed_no_more_is_asked_for_as_it_is_written(run, audited, monkeypatch):
    def unknown(target):
        raise NotFoundError(f"no session or agent {str(target)!r}")

    monkeypatch.setattr(audited, "resolve", unknown)
    assert run("audit", "--session", "s1")[0] == 0
    assert audited.asked[0].session == "s1"


def test_another_nodes_log_is_asked_for_with_a_signed_request(run, audited):
    code, out, _ = run("audit", "--node", "berta", "-o", "json")
    assert (code, json.loads(out)["node_name"]) == (0, "berta")
    (order,) = audited.signs
    assert (order.node_id, order.action, order.epoch) == (OTHER_ID, "read_audit", 5)
    assert audited.asked[0].command.type == "command"


def test_a_node_that_is_not_known_is_not_found(run, audited):
    assert run("audit", "--node", "carl")[0] == 3
    assert run("audit", "--verify", "--node", "carl")[0] == 3
    assert audited.asked == []


def test_words_of_agents_cannot_move_the_cursor(run, audited):
    nasty = "a\x1b[2Jb\u202ec\nd"
    audited.kept = chained(AuditRecord(1, 5, "thing", agent=nasty, detail=nasty, outcome=nasty))
    for words in (["audit"], ["audit", "--verify"]):
        code, out, err = run(*words)
        assert code == 0
        assert not {"\x1b", "\u202e"} & set(out + err), words
    assert "a\\u001b[2Jb\\u202ec\\u000ad" in run("audit")[1]


def test_whose_word_it_was_is_shown_short_and_told_whole(run, audited):
    audited.kept = chained(AuditRecord(1, 5, "command_executed", actor="3b6a27bcceb6a42d"))
    assert run("audit")[1].splitlines()[1].split()[-1] == "3b6a27bc"
    assert '"key_id": "3b6a27bcceb6a42d"' in run("audit", "-o", "json")[1]


def test_a_record_that_makes_no_sense_is_shown_as_unreadable(run, audited):
    audited.kept[2] = Kept(3, None, b"")
    code, out, _ = run("audit")
    assert (code, "unreadable" in out) == (0, True)
    assert run("audit", "--verify")[0] == 1


def test_a_whole_log_is_told_with_its_count_and_hash(run, audited):
    audited.heads = [seen(head_of(WHOLE[3]))]
    code, out, err = run("audit", "--verify")
    assert code == 0
    assert out == f"anna: 7 records up to 7 are as written\nhash {WHOLE[-1].hash.hex()}\n"
    assert "compared with heads seen of it: 1, the newest of record 4\n" in err
    assert "1 of 2 neighbours said what they have seen" in err
    value = json.loads(run("audit", "--verify", "-o", "json")[1])
    assert (value["ok"], value["records"], value["wrong"]) == (True, 7, [])
    assert (value["heads"], value["heads_seq"]) == (1, 4)
    (row,) = csv.DictReader(io.StringIO(run("audit", "--verify", "-o", "csv")[1]))
    assert (row["ok"], row["records"], row["hash"]) == ("true", "7", WHOLE[-1].hash.hex())


def test_a_changed_log_is_told_with_node_and_record_and_exit_1(run, audited):
    del audited.kept[3]
    code, out, _ = run("audit", "--verify")
    assert (code, out) == (1, f"anna ({NODE_ID[:10]}): record 4: it was removed: 5 follows 3\n")
    value = json.loads(run("audit", "--verify", "-o", "json")[1])
    assert value["wrong"] == [
        {"node_id": NODE_ID, "node_name": "anna", "seq": 4, "what": "it was removed: 5 follows 3"}
    ]
    assert run("audit", "--verify", "-q")[1] == f"{NODE_ID} 4\n"


def test_a_node_whose_heads_contradict_each_other_is_named(run, audited):
    what = "record 4 has two hashes, both signed by the node"
    pair = [head_of(WHOLE[3], node=OTHER_ID, hash=bytes([n]) * 32) for n in (1, 2)]
    audited.heads = [seen(head, OTHER, what) for head in pair]
    code, out, _ = run("audit", "--verify")
    assert (code, out) == (1, f"berta ({OTHER_ID[:10]}): record 4: {what}\n")


def test_a_witness_that_invents_trouble_accuses_nobody(run, audited):
    what = "record 4 has two hashes, both signed by the node"
    pair = [head_of(WHOLE[3], node=OTHER_ID, hash=bytes([n]) * 32) for n in (1, 2)]
    audited.heads = [
        seen(head_of(WHOLE[3]), trouble="it looks odd"),
        seen(head_of(WHOLE[3]), trouble=what),
        *(seen(head, NODE, what) for head in pair),  # not signed by the node that they name
        pb.SeenHead(trouble=what),
    ]
    assert run("audit", "--verify")[0] == 0


def test_a_log_is_verified_whole_or_not_at_all(run, audited):
    code, _, err = run("audit", "--verify", "--since", "1h")
    assert (code, "as a whole" in err) == (2, True)
    assert audited.asked == []


def test_a_moment_that_no_text_can_say_is_shown_as_none(run, audited):
    audited.kept = chained(AuditRecord(1, (1 << 63) - 1, "thing"))
    assert json.loads(run("audit", "-o", "json")[1])["records"][0]["at"] is None
    assert run("audit")[0] == 0


def test_a_changed_log_is_accepted_by_name_and_never_unasked(run, audited):
    code, _, err = run("audit", "--accept", "berta")
    assert (code, "--yes" in err, audited.accepted) == (2, True, [])
    code, out, _ = run("audit", "--accept", "berta", "--yes")
    assert (code, out) == (0, "berta: 3 heads forgotten; its log is believed anew\n")
    assert audited.accepted == [OTHER_ID]
    assert run("audit", "--accept", "carl", "--yes")[0] == 3


def test_a_record_is_printed_with_the_fields_that_the_documentation_names(run, audited):
    page = (Path(__file__).parents[4] / "docs" / "audit.md").read_text()
    told = page.partition("A record has")[2].partition("What was said")[0]
    audited.kept = chained(AuditRecord(1, 5, "thing"))
    (record,) = json.loads(run("audit", "-o", "json")[1])["records"]
    assert set(re.findall(r"`([a-z_]+)`", told)) - {"steer", "kill"} == set(record)
