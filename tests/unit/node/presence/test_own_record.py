"""What a node says of itself: of too many labels as many as its row has room for."""

from meshnode.app.audit.alarms import Alarm, Alarms
from meshnode.core.membership.genesis import Limits
from meshnode.core.membership.members import NodeRecord, node_to_row
from meshnode.node.presence.own_record import LABELS, labels_of

MANY = {f"k{one:03}": "v" * 200 for one in range(200)}


def test_too_many_labels_are_cut_to_what_a_row_takes_with_an_alarm_that_names_them():
    told: list[Alarm] = []
    alarms = Alarms(lambda: 0.0, lambda alarm, _raised: told.append(alarm))
    found = labels_of({"k199": "told"}, MANY, alarms)
    assert found["k199"] == "told"
    assert len(node_to_row(NodeRecord("n", labels=found))) < Limits().row_bytes_max // 1.5
    assert [one.id for one in told] == [LABELS]
    left_out = [key for key in MANY if key not in found]
    assert left_out
    assert repr(left_out[0]) in told[0].detail


def test_labels_that_fit_raise_no_alarm():
    alarms = Alarms(lambda: 0.0, lambda *_: None)
    assert labels_of({"room": "lab"}, {"room": "old", "site": "b"}, alarms) == {
        "room": "lab",
        "site": "b",
    }
    assert alarms.standing() == ()
