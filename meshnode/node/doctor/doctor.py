"""`doctor`: looks at a home, its node and other nodes, and lets the pure floors judge what it saw.

Invariant: nothing is changed, here or there; every wait is bounded (PATIENCE_S for the own node
once, PEER_S for all other nodes at once), and what goes wrong becomes a check, not an exception.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

from meshnode.agents.cgroup import why_none
from meshnode.app.audit.alarms import Alarm
from meshnode.app.diagnosis.diagnosis import (
    NO_NODE,
    REJOIN,
    START,
    Check,
    from_error,
    judge_agents,
    judge_alarms,
    judge_budgets,
    judge_certificate,
    judge_clock,
    judge_disk,
    judge_joiners,
    judge_listening,
    judge_logs,
    judge_loop,
    judge_multicast,
    judge_name,
    judge_not_checked,
    judge_silence,
    judge_version,
    unknown,
)
from meshnode.app.diagnosis.observations import Edition, NodeFacts
from meshnode.app.diagnosis.peer_diagnosis import (
    Here,
    Peer,
    clock_of,
    judge_other_meshes,
    judge_peer,
    judge_strangers,
)
from meshnode.client.commands.budgets import budgets
from meshnode.client.connection.silence import pid_of
from meshnode.client.errors import NoNodeError
from meshnode.client.home import check_all_private, check_private, check_surroundings
from meshnode.client.keys.keyfiles import read_secret
from meshnode.client.mesh import MeshClient
from meshnode.core.errors import MeshError, UnreachableError
from meshnode.core.ids import PREFIX_CHARS_MIN, node_id_of, pasted
from meshnode.node.audit.alarming import CLONED_HOME
from meshnode.node.clock import SystemClock, chance
from meshnode.node.configuration.config import load_config
from meshnode.node.configuration.configured import Config
from meshnode.node.configuration.pricing import mistakes
from meshnode.node.containers import APART, HOW, runs_elsewhere
from meshnode.node.doctor.observing import Observer, Seen
from meshnode.node.doctor.suspects import Known, asked_for, suspects
from meshnode.node.homes.founding import device_key, read_genesis
from meshnode.node.homes.membership import certificates_of, membership_in
from meshnode.node.homes.roots import known_roots
from meshnode.node.offline import OfflineMesh
from meshnode.node.version import BUILD, VERSION
from meshnode.rpc.probes import OURS
from meshnode.rpc.tls import Credentials, Identity
from meshnode.store import log_sessions
from meshnode.store.database import VERSION as SCHEMA
from meshnode.store.faults import free_bytes
from meshnode.store.frozen import read_home

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from meshnode.client.home import Home
    from meshnode.core.membership.genesis import Genesis

ROOM_MIN = 1 << 20  # bytes that are free on the disk of a home; less: a node may not start
PATIENCE_S = 3.0  # with the own node; it answers in milliseconds, or is stuck
ASKED_TIMES = 5
PEERS_MAX = 16  # at once; more are named as not checked
NODE_CHECKS = ("version", "listening", "joiners_port", "loop_lag", "budgets", "multicast")
_NO_HOME = "this home is not usable yet"


class _Found(msgspec.Struct):
    """What is known so far, and what has been said about it."""

    checks: list[Check] = msgspec.field(default_factory=list)
    genesis: Genesis | None = None
    node_id: str = ""
    identity: Identity | None = None
    config: Config = msgspec.field(default_factory=Config)
    status: dict[str, Any] | None = None
    facts: NodeFacts | None = None
    silent: bool = False  # a node runs, and nothing is heard of it
    has_left: bool = False
    absence: Check | None = None  # why nothing is known of the node itself
    members: list[dict[str, Any]] = msgspec.field(default_factory=list)
    budgets: list[dict[str, Any]] = msgspec.field(default_factory=list)
    clock: SystemClock = msgspec.field(default_factory=SystemClock)

    def attempt(self, check_id: str, look: Callable[[], Check]) -> bool:
        """Add a check, or what it failed with; returns whether all is well."""
        try:
            check = look()
        except MeshError as error:
            check = from_error(check_id, error)
        except OSError as error:
            said = f"{error.filename or 'a file'}: {(error.strerror or str(error)).lower()}"
            check = Check(check_id, ok=False, detail=said, fix="make it readable for this user")
        self.checks.append(check)
        return check.ok is not False


def examine(home: Home, words: Sequence[str] = ()) -> list[Check]:
    """Check this home, and the nodes named or those that make trouble.

    Raises UsageError for a word that is no address, NotFoundError and ConflictError for a node that
    is not known or not only one.
    """
    found = _Found()
    _look_at_home(home, found)
    found.checks.append(judge_agents(why_none()))
    _ask_node(home, found)
    known = Known(found.node_id, found.members, found.status or {}, found.config.seeds)
    peers = asked_for(words, known) if words else [] if found.has_left else suspects(known)
    left_out = [(peer.name, peer.node_id) for peer in peers[PEERS_MAX:]]
    seen = _observe(found, peers[:PEERS_MAX])
    _judge_node(found, seen)
    _judge_peers(found, known, seen)
    if left_out:
        found.checks.append(judge_not_checked(left_out))
    if not words:
        found.checks += judge_strangers(known.strangers())
        if known.status.get("other_meshes"):
            found.checks.append(judge_other_meshes(known.status["other_meshes"]))
    return found.checks


def _look_at_home(home: Home, found: _Found) -> None:
    if not found.attempt("home", lambda: _home(home, found)) or found.genesis is None:
        found.checks += [unknown(one, _NO_HOME) for one in ("keys", "config", "certificate")]
        return
    genesis = found.genesis
    found.attempt("keys", lambda: _keys(home, found))
    found.attempt("config", lambda: _config(home, found))
    wrong = mistakes(home)
    if wrong:
        fix = "correct the file: until then the next price list holds for what is left out"
        found.checks.append(Check("prices", ok=False, detail="; ".join(wrong), fix=fix))
    found.attempt("certificate", lambda: _certificate(home, genesis, found))
    with suppress(MeshError):
        had = read_home(
            home.database, lambda disk: disk.run_now(log_sessions.sources), checked=False
        )
        found.checks += judge_logs(had - {one.source for one in found.config.ingest})


def _home(home: Home, found: _Found) -> Check:
    if home.path.exists():  # what a first `init` or `up` would refuse, too
        run = () if home.is_moved else (home.run,)  # a start takes an old link away
        check_all_private((home.path, *run, home.sessions), check_private)
    elif home.path.parent.exists():
        check_surroundings(home.path.parent)
    genesis = read_genesis(home)
    found.genesis = genesis
    return Check("home", ok=True, detail=f"{home.path} belongs to mesh {genesis.name}")


def _keys(home: Home, found: _Found) -> Check:
    with suppress(MeshError):  # first: whichever key is off, this node is no stranger to itself
        found.node_id = node_id_of(device_key(home).public)
    others = home.operator_key, home.session_root, home.root_key
    check_all_private((home.node_key, *others), read_secret)
    device_key(home)  # a key that is missing is not looked at above
    return Check("keys", ok=True, detail="readable, and by this user alone")


def _config(home: Home, found: _Found) -> Check:
    if not home.config.exists():
        return Check("config", ok=True, detail="no config.yaml: flags and defaults decide")
    found.config = load_config(home.config)
    warnings = "; ".join(found.config.warnings)
    return Check("config", ok=True, detail=warnings or f"{home.config} is understood")


def _certificate(home: Home, genesis: Genesis, found: _Found) -> Check:
    chain = certificates_of(home)
    if not found.node_id:
        return unknown("certificate", "node.key cannot be read: see the check `keys`")
    roots = known_roots(home, genesis)
    facts = membership_in(chain, genesis, found.node_id, roots)
    check = judge_certificate(facts, found.clock.wall_s())
    if check.ok:
        mine = Credentials(device_key(home), genesis, chain, found.clock.wall_s, chance, roots)
        found.identity = Identity(mine)
    return check


def _ask_node(home: Home, found: _Found) -> None:
    if found.genesis is None:
        found.absence = unknown("node", _NO_HOME)
        found.checks.append(found.absence)
        return
    try:
        with MeshClient(home, patience_s=PATIENCE_S) as mesh:
            answers = [_timed_status(mesh, found.clock) for _ in range(ASKED_TIMES)]
            found.members = mesh.nodes()["nodes"]
            found.budgets = budgets(mesh)["budgets"]
        status, facts = answers[-1][0], _facts(answers)
    except NoNodeError as error:
        database = _read_disk(home, found)
        found.silent = error.pid is not None
        room = _lack_of_room(home)
        begin = f"look at df -h {pasted(str(home.path))}; then {START}" if room else START
        fix, ok = ("", None) if found.has_left else (begin, False)
        absence = Check("node", ok=ok, detail=NO_NODE + room, fix=fix)
        found.absence = from_error("node", error) if found.silent else absence
        found.checks += [found.absence, database]
    except UnreachableError:
        pid = pid_of(home)
        found.silent = True
        if runs_elsewhere(home):
            said = f"{APART}, and does not answer in {PATIENCE_S:g} s"
            fix = f"wait a minute; if it stays so, end it there, then, there, {START}"
            found.absence = Check("node", ok=False, detail=said, fix=fix)
        else:
            found.absence = judge_silence(pid, PATIENCE_S, is_stopped=_is_stopped(pid))
        found.checks += [found.absence, _read_disk(home, found)]
    except MeshError as error:
        found.absence = from_error("node", error)
        found.checks.append(found.absence)
    else:
        found.status, found.facts = status, facts
        up = f"{facts.name} is running (pid {facts.pid}), links: {facts.links}"
        found.checks.append(Check("node", ok=True, detail=up))
        if runs_elsewhere(home):
            said = f"{APART}: from here run, down and leave are refused"
            found.checks.append(unknown("pid_namespace", said, HOW))


def _lack_of_room(home: Home) -> str:
    """Say why a node would not start on the disk of a home; "" for all that is known."""
    free = free_bytes(home.database)
    if free is None:
        return ""
    if os.statvfs(home.path).f_flag & os.ST_RDONLY:
        return f", and the disk of {home.path} is read-only"
    return f", and the disk of {home.path} has {free >> 10} KiB left" if free < ROOM_MIN else ""


def _timed_status(mesh: MeshClient, clock: SystemClock) -> tuple[dict[str, Any], float]:
    before_s = clock.steady_s()
    status = mesh.status()
    return status, clock.steady_s() - before_s


def _facts(answers: Sequence[tuple[dict[str, Any], float]]) -> NodeFacts:
    status = answers[-1][0]
    return NodeFacts(
        name=status["name"],
        node_id=status["node_id"],
        pid=status["pid"],
        edition=Edition(status["version"], status["build"], status["schema"]),
        mdns=status["mdns"],
        heard_by_mdns=status["heard_by_mdns"],
        links=status["links"],
        listen=status["listen"][0],
        lag_s=status["loop_lag_s"],
        answers_s=tuple(lasted_s for _, lasted_s in answers),
    )


def _is_stopped(pid: str) -> bool:
    try:
        return bool(psutil.Process(int(pid)).status() in {"stopped", "tracing-stop"})
    except (ValueError, OverflowError, psutil.Error):
        return False


def _read_disk(home: Home, found: _Found) -> Check:
    """Learn from the disk of a node that says nothing who else there is."""

    def look() -> Check:
        with OfflineMesh(home) as mesh:
            found.members = mesh.nodes()["nodes"]
        own = (one["state"] for one in found.members if one["node_id"] == found.node_id)
        found.has_left = next(own, "") == "left"
        if found.has_left:
            said = "this node has left its mesh for good"
            return Check("membership", ok=False, detail=said, fix=REJOIN)
        return judge_disk(mesh.damage.summary if mesh.damage else "", len(found.members))

    found.attempt("database", look)
    return found.checks.pop()


def _observe(found: _Found, peers: Sequence[Peer]) -> Seen:
    mesh_id = found.genesis.mesh_id if found.genesis else ""
    observer = Observer(found.node_id, mesh_id, found.identity, found.clock.wall_s)
    seen, status = Seen(), found.status

    async def observe() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(observer.peers(peers, seen))
            if status is not None:
                addresses = _own_addresses(found)
                tasks.create_task(observer.own(addresses, status["enrolment"], seen))
                if status["mdns"].startswith(("on", "starting")):
                    tasks.create_task(observer.multicast(addresses, seen))

    asyncio.run(observe())
    return seen


def _own_addresses(found: _Found) -> list[str]:
    own = (one["addresses"] for one in found.members if one["node_id"] == found.node_id)
    return list(next(own, []))


def _judge_node(found: _Found, seen: Seen) -> None:
    facts = found.facts
    if facts is None:
        why, fix = (found.absence.detail, found.absence.fix) if found.absence else (_NO_HOME, "")
        found.checks += [unknown(one, why, fix) for one in NODE_CHECKS]
        return
    alarms = [_alarm(**one) for one in (found.status or {})["alarms"]]
    found.checks.append(judge_version(facts, Edition(VERSION, BUILD, SCHEMA)))
    if clone := next((one for one in alarms if one.id == CLONED_HOME), None):
        said = "it listens no more: another machine runs with a copy of this home"
        found.checks += [unknown(one, said, clone.fix) for one in ("listening", "joiners_port")]
    else:
        found.checks.append(judge_listening(seen.own, facts.node_id))
        if seen.joiners is not None:
            found.checks.append(judge_joiners(seen.joiners, facts.node_id, facts.listen))
    found.checks += judge_name(facts.name, _namesakes(found, facts.name))
    found.checks.append(judge_loop(facts))
    found.checks += judge_alarms(alarms)
    found.checks.append(judge_budgets(found.budgets))
    others = len(found.members) - 1
    found.checks.append(judge_multicast(facts, seen.multicast, alone=others < 1))


def _namesakes(found: _Found, name: str) -> list[str]:
    gone = {"left", "revoked"}
    others = [one for one in found.members if one["node_id"] != found.node_id]
    return [
        f"{name}/{one['node_id'][:PREFIX_CHARS_MIN]}"
        for one in others
        if one["name"] == name and one["state"] not in gone
    ]


def _alarm(id: str, detail: str, fix: str, **_: object) -> Alarm:  # noqa: A002 - as status says
    return Alarm(id, detail, fix)


def _judge_peers(found: _Found, known: Known, seen: Seen) -> None:
    here = Here(
        node_id=found.node_id,
        mesh_id=found.genesis.mesh_id if found.genesis else "",
        protocol=OURS,
        now_s=found.clock.wall_s(),
        node_runs=found.facts is not None or found.silent,
        has_left=found.has_left,
    )
    peers = [(known.recognised(peer, attempts), attempts) for peer, attempts in seen.peers]
    others = [one for one in peers if one[0].node_id != found.node_id]
    clocks = [fact for one in others if (fact := clock_of(*one)) is not None]
    found.checks.append(judge_clock(clocks))
    for peer, attempts in peers:
        found.checks += judge_peer(peer, attempts, here)
