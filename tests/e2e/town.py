"""A town: a mesh whose nodes live on hosts of their own, and what its nodes say about it.

Complaints are sentences; a condition holds when there are none. Nothing here asserts a time:
`pytest -s` shows how long things took.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from e2e.fleet import pauses_s
from e2e.hosts import PORT, HostedFleet, HostedNode

from meshnode.client.home import Home
from meshnode.client.mesh import MeshClient

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE_S = 60.0  # longer than the longest pause between two dials
AT_ONCE = 4  # command lines
ENROLMENT_PORT = 7700  # where nobody listens later: who joined there knows no address of today
LOST = {"unreachable", "dead"}
SAME_EVERYWHERE = ("session_id", "node_name", "state", "pid", "ended_at", "end_reason")


@dataclass(frozen=True)
class View:
    """What one node answers."""

    viewer: str
    states: dict[str, str]
    links: dict[str, set[str]]
    epochs: dict[str, int]
    sessions: dict[str, dict]
    coverages: tuple[dict, dict]


@dataclass
class Town:
    """The nodes of a mesh, and what is true of it when nothing is wrong."""

    fleet: HostedFleet
    nodes: list[HostedNode]
    agents: dict[str, str] = field(default_factory=dict)  # and the state they shall be seen in

    @property
    def hosts(self):
        return self.fleet.hosts

    @property
    def names(self) -> set[str]:
        return {node.name for node in self.nodes}

    def start(self, node: HostedNode, agent: str) -> None:
        answer = node.call("run", "--detach", "--agent-id", agent, "--", "sleep", "10000")
        assert answer.code == 0, f"{agent} on {node.name}: {answer.err}"
        self.agents[agent] = "running"

    def kill(self, node: HostedNode, agent: str) -> None:
        assert node.json("kill", agent, "--force")["outcome"] == "applied"
        self.agents[agent] = "killed"

    def others(self, *nodes: HostedNode) -> list[HostedNode]:
        return [node for node in self.nodes if node not in nodes]

    def linked_to(self, node: HostedNode) -> HostedNode:
        """Return a neighbour: where there is no link, a cut would change nothing."""
        names = look(node).links[node.name]
        return next(other for other in self.nodes if other.name in names)

    def wait_until_all_is_well(self, when: str) -> None:
        eventually(f"all is well {when}", self.unwell)

    def unwell(self) -> list[str]:
        """Say what differs from a mesh in which everybody hears everybody."""
        views = [look(node) for node in self.nodes]
        found = [f"{v.viewer} sees {v.states}" for v in views if v.states != self.all_alive]
        for view in views:
            found += incomplete(view, self.names, set())
            found += one_sided(view)
            seen = {agent: session["state"] for agent, session in view.sessions.items()}
            if seen != self.agents:
                found.append(f"{view.viewer} lists {seen}")
            if essence(view) != essence(views[0]):
                found.append(f"{view.viewer} and {views[0].viewer} list different sessions")
        return found

    @property
    def all_alive(self) -> dict[str, str]:
        return dict.fromkeys(self.names, "alive")


def look(node: HostedNode) -> View:
    """Ask a node for `nodes` and `list`, as the command line does, without its start."""
    assert node.process.poll() is None, f"{node.name} has ended by itself: {node.stderr}"
    with MeshClient(Home(node.home)) as mesh:
        members, listed = mesh.nodes(), mesh.list_sessions()
    name_of = {one["node_id"]: one["name"] for one in members["nodes"]}
    return View(
        viewer=node.name,
        states={one["name"]: one["state"] for one in members["nodes"]},
        links={one["name"]: {name_of[p] for p in one["links"]} for one in members["nodes"]},
        epochs={one["name"]: one["epoch"] for one in members["nodes"]},
        sessions={one["agent_id"]: one for one in listed["sessions"]},
        coverages=(members["coverage"], listed["coverage"]),
    )


def essence(view: View) -> dict[str, list]:
    return {a: [one[key] for key in SAME_EVERYWHERE] for a, one in view.sessions.items()}


def one_sided(view: View) -> list[str]:
    """Say which links only one of their ends lists."""
    edges = {(here, there) for here, peers in view.links.items() for there in peers}
    alone = sorted(edges - {(there, here) for here, there in edges})
    return [f"{view.viewer} shows a link from {a} to {b} and none back" for a, b in alone]


def incomplete(view: View, known: set[str], missing: set[str]) -> list[str]:
    """Say where coverage is not honest: who is known, how many are heard, who is missing."""
    honest = (len(known), len(known - missing), missing)
    said = [
        (c["nodes_known"], c["nodes_heard"], {one["node_name"] for one in c["missing"]})
        for c in view.coverages
    ]
    return [f"{view.viewer} says {one}, not {honest}" for one in said if one != honest]


def not_lost(view: View, lost: set[str], known: set[str]) -> list[str]:
    """Say what keeps a view from showing exactly these nodes, and their sessions, as lost."""
    found = incomplete(view, known, lost)
    for name, state in view.states.items():
        if state not in (LOST if name in lost else {"alive"}):
            found.append(f"{view.viewer} sees {name} {state}")
    for agent, session in view.sessions.items():
        marked = session["state"] == "unreachable" and session["observed_at"]
        if session["node_name"] in lost and not session["ended_at"] and not marked:
            found.append(f"{view.viewer} shows {agent} as {session['state']}")
    return found


def still_listed(views: list[View], one: HostedNode, other: HostedNode) -> list[str]:
    """Say who shows a link between two nodes, and that nobody is lost: there are other paths."""
    for view in views:
        assert set(view.states.values()) == {"alive"}, f"{view.viewer}: {view.states}"
    return [
        f"{view.viewer} shows a link from {a} to {b}"
        for view in views
        for a, b in ((one.name, other.name), (other.name, one.name))
        if b in view.links[a]
    ]


def eventually(what: str, complaints: Callable[[], list[str]]) -> None:
    """Ask again until there is nothing to complain about, and tell how long that took."""
    began_at, pause_s = time.monotonic(), pauses_s()
    while found := complaints():
        waited_s = time.monotonic() - began_at
        assert waited_s < PATIENCE_S, f"waited {waited_s:.0f} s: {what}: {'; '.join(found[:6])}"
        time.sleep(next(pause_s))  # between real processes there is nothing else to wait on
    tell(began_at, what)


def tell(began_at: float, what: str) -> None:
    print(f"{time.monotonic() - began_at:6.1f} s  {what}")  # noqa: T201 - figures to read


def settle(fleet: HostedFleet, names: tuple[str, ...], seeded: tuple[str, ...] = ()) -> Town:
    """Found a mesh and start all its nodes at once, at addresses that none of them was told."""
    founder, *guests = nodes = [fleet.node(name) for name in names]
    founder.json("init", "--mesh", "town", "--name", founder.name)
    founder.up("--listen", f"{founder.host.address}:{ENROLMENT_PORT}", "--no-mdns")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda guest: fleet.join(founder, guest), guests))
        founder.end()
        list(pool.map(lambda node: up(node, founder if node.name in seeded else None), nodes))
    return Town(fleet, nodes)


def up(node: HostedNode, seed: HostedNode | None = None) -> None:
    found_by = ("--no-mdns", "--seed", f"{seed.host.address}:{PORT}") if seed else ("--mdns",)
    node.up("--listen", f"{node.host.address}:{PORT}", *found_by)


def let_nobody_in(town: Town, name: str) -> None:
    """Let one more node join, from behind a firewall."""
    node = town.fleet.node(name)
    town.hosts.refuse_inbound(node.host)
    town.fleet.join(town.nodes[0], node)
    up(node)
    town.nodes.append(node)
    town.start(node, "behind-the-wall")
    town.wait_until_all_is_well("with a node behind a one-way firewall")
