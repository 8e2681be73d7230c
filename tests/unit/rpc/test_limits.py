"""How many connections a port takes, by what this process may open."""

import resource

import pytest

from meshnode.gateway.listening import OF_FILES as OF_HTTP
from meshnode.rpc.limits import room_for
from meshnode.rpc.servers import OF_JOINERS, OF_MEMBERS


@pytest.mark.parametrize(
    ("files", "room"), [(1024, 128), (65_536, 512), (resource.RLIM_INFINITY, 512), (256, 32)]
)
def test_a_port_takes_what_it_is_to_have_or_its_part_of_the_files(monkeypatch, files, room):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert room_for(512, 1 / 8) == room


def test_all_ports_together_leave_a_quarter_of_the_files_to_the_node():
    assert OF_MEMBERS.of_files + OF_JOINERS.of_files + OF_HTTP <= 3 / 4


def test_a_port_takes_more_connections_than_calls():
    assert all(limits.calls_max < limits.connections_max for limits in (OF_MEMBERS, OF_JOINERS))
