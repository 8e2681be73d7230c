"""Why a peer is not seen, judged from what was observed at its addresses.

Invariant: pure, as `diagnosis` is. Checks follow the way of a link: connect, identity, protocol and
clock, TLS, the link itself; the first that fails explains the rest, which is then left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from meshnode.app.diagnosis.diagnosis import (
    ADVERTISE,
    CLOCK_OFF_S_MAX,
    ISSUE_ANEW,
    REJOIN,
    RESTART,
    START,
    Check,
    configure,
    span,
)
from meshnode.app.diagnosis.observations import ClockFact, Dial
from meshnode.app.mesh.revoking import AGAIN, ANEW, WITH_ADMITTER
from meshnode.core.ids import pasted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from meshnode.app.diagnosis.observations import Attempt, Greeting

SHORT_CHARS = 10
STRANGERS_SHOWN_MAX = 3
ACCOUNTED_FOR = frozenset({"alive", "down", "left"})  # whoever answers at its addresses
MOVE_IT = (
    "to bring that node into this mesh, run there: session-mesh leave, then session-mesh join -"
    " with an invite of this mesh; otherwise take the address out of the seeds"
)


class Peer(msgspec.Struct, frozen=True):
    """Whom we look for. `node_id` is empty where only an address is known, `state` for strangers.

    `linked`: our node has a working stream with it, whoever dialled.
    """

    name: str
    addresses: tuple[str, ...]
    node_id: str = ""
    state: str = ""
    linked: bool = False
    asked: bool = False
    trouble: str = ""
    is_seed: bool = False


class Here(msgspec.Struct, frozen=True):
    """Who looks. `mesh_id` is empty for a home without a mesh."""

    node_id: str
    mesh_id: str
    protocol: int
    now_s: float
    node_runs: bool
    has_left: bool = False

    @property
    def begin(self) -> str:
        """How the node of this home takes up what was written into its configuration."""
        if self.has_left:
            return REJOIN
        return RESTART if self.node_runs else START

    @property
    def name_seed(self) -> str:
        """How to tell this node where another one is."""
        return configure("seeds", then=self.begin)


DIAL_FIX = {
    Dial.REFUSED: f"start the node on that machine: {START}; if it listens elsewhere now, tell this"
    " one: {name_seed}",
    Dial.SILENT: "open TCP ports {port} and {next} in the firewall of that machine, or correct the"
    " address: session-mesh status there shows it",
    Dial.NO_ROUTE: "connect both machines to one network, or advertise an address that this machine"
    f" can reach; there {ADVERTISE}",
    Dial.NO_NAME: "correct the name, or write the IP address instead",
    Dial.FAILED: "correct the address: session-mesh status on that machine shows it",
}


def judge_peer(peer: Peer, attempts: Sequence[Attempt], here: Here) -> list[Check]:
    """Explain one peer. One that is alive, well and was not asked for is one line."""
    if peer.state == "revoked":
        return [Check(_id("link", peer), ok=None, detail="it was revoked: nobody links with it")]
    checks = _steps(peer, best_of(attempts, peer), attempts, here)
    bad = any(check.ok is False for check in checks)
    well = peer.state == "alive" and not peer.asked and not bad
    told = checks[-1:] if well else checks
    return [_of_seed(check, peer.name) for check in told] if peer.is_seed else told


def _of_seed(check: Check, address: str) -> Check:
    said = check.detail if check.detail.startswith(address) else f"{address}: {check.detail}"
    return replace(check, detail=f"seed {said}")


def clock_of(peer: Peer, attempts: Sequence[Attempt]) -> ClockFact | None:
    """Return what a peer's Hello says of its clock, if it is that peer's."""
    greeting = _greeting_of(best_of(attempts, peer))
    if greeting is None or peer.node_id not in {"", greeting.node_id}:
        return None
    return ClockFact(peer.name, greeting.ahead_s)


def best_of(attempts: Sequence[Attempt], peer: Peer) -> Attempt | None:
    """Choose the address that got furthest.

    Where another node than the peer answers says least: bridges of machines share one address.
    """

    def progress(attempt: Attempt) -> tuple[bool, bool, bool, bool]:
        is_another = _is_another(attempt, peer)
        is_peer = attempt.shown is not None and not is_another
        connected = attempt.dial is Dial.CONNECTED
        return (attempt.entered is True, is_peer, not is_another, connected)

    return max(attempts, key=progress, default=None)


def _is_another(attempt: Attempt, peer: Peer) -> bool:
    return attempt.shown is not None and peer.node_id not in {"", attempt.shown.node_id}


def _steps(
    peer: Peer, best: Attempt | None, attempts: Sequence[Attempt], here: Here
) -> list[Check]:
    if best is None or best.dial is not Dial.CONNECTED:
        return [_not_connected(peer, best, attempts, here)]
    if _is_another(best, peer) and (peer.linked or peer.state in ACCOUNTED_FOR):
        return [_not_connected(peer, best, attempts, here)]
    checks = [_connected(peer, best, attempts), _identity(peer, best, here)]
    if checks[-1].ok and best.for_joiners:
        return [*checks, _for_joiners(peer, best, here)]
    if checks[-1].ok:
        checks += _greeted(peer, best, here)
        checks.append(_tls(peer, best, here))
    if all(check.ok is not False for check in checks) and checks[1].ok:
        checks.append(_link(peer, here))
    return checks


def _connected(peer: Peer, best: Attempt, attempts: Sequence[Attempt]) -> Check:
    others = [f"{one.address} {one.detail}" for one in attempts if one.dial is not Dial.CONNECTED]
    detail = "; ".join([f"{best.address} takes connections", *others])
    return Check(_id("connect", peer), ok=True, detail=detail)


def _not_connected(
    peer: Peer, best: Attempt | None, attempts: Sequence[Attempt], here: Here
) -> Check:
    check_id = _id("connect", peer)
    said = "; ".join(f"{one.address} {_instead(one, here)}" for one in attempts)
    if best is None:
        said = "no address of it is known"
        fix = f"name one: {here.name_seed}"
    elif best.shown is not None:
        fix = _relocate(peer, here)
    else:
        fix = _advice(best, here)
    if peer.linked:
        detail = f"it dials out only, and is linked that way: {said}"
        return Check(check_id, ok=True, detail=detail)
    if peer.state == "left":
        return Check(check_id, ok=None, detail="it has left the mesh for good")
    if peer.state == "down":
        detail = f"it was stopped on purpose, with session-mesh down: {said}"
        return Check(check_id, None, detail, f"start the node on that machine: {START}")
    if peer.state == "alive":
        detail = f"it is alive through other nodes, but this one cannot dial it: {said}"
        return Check(check_id, None, detail, fix)
    return Check(check_id, ok=False, detail=said, fix=fix)


def _instead(attempt: Attempt, here: Here) -> str:
    if attempt.shown is None:
        return attempt.detail
    if attempt.shown.node_id == here.node_id:
        return "is this node itself"
    return f"is another node ({attempt.shown.node_id[:SHORT_CHARS]})"


def _identity(peer: Peer, best: Attempt, here: Here) -> Check:
    check_id, shown = _id("identity", peer), best.shown
    if shown is None:
        return _mute(peer, best)
    if here.mesh_id and shown.mesh_id != here.mesh_id:
        detail = f"{best.address} belongs to mesh {shown.mesh_id}, this home to {here.mesh_id}"
        return Check(check_id, ok=False, detail=detail, fix=MOVE_IT)
    if shown.node_id == here.node_id != peer.node_id:
        fix = "name the address of another node" if not peer.node_id else _relocate(peer, here)
        detail = f"{best.address} is this node itself"
        return Check(check_id, ok=False if peer.node_id else None, detail=detail, fix=fix)
    if peer.node_id and shown.node_id != peer.node_id:
        detail = f"another node listens at {best.address} now: {shown.node_id}, not {peer.node_id}"
        return Check(check_id, ok=False, detail=detail, fix=_relocate(peer, here))
    detail = f"{best.address} is node {shown.node_id[:SHORT_CHARS]} of "
    detail += "this mesh" if here.mesh_id else f"mesh {shown.mesh_id}"
    return Check(check_id, ok=True, detail=detail)


def _slow(check_id: str, said: str) -> Check:
    detail = f"{said}; but the node is heard: the network to it is slow, or it is busy"
    return Check(check_id, None, detail, "wait a minute, then run session-mesh doctor again")


def _mute(peer: Peer, best: Attempt) -> Check:
    check_id = _id("identity", peer)
    if peer.node_id and peer.state == "alive":
        return _slow(check_id, f"{best.address} {best.silence}")
    if peer.node_id and (peer.state == "stalled" or "says nothing" in best.silence):
        detail = (
            f"{best.address}: its machine takes connections, its node says nothing: it is frozen,"
            " swapped out, stopped in a debugger, or out of files that it may open"
        )
        fix = (
            "look at that machine: session-mesh doctor there says more; let the node go on with"
            " kill -CONT PID, or restart it"
        )
        return Check(check_id, ok=False, detail=detail, fix=fix)
    detail = f"{best.address} {best.silence}"
    fix = "correct the port, or stop what listens there and restart the node"
    if "is full" in best.silence:
        fix = f"if a node listens there, see who holds connections to it: ss -tn there; else {fix}"
    return Check(check_id, ok=False, detail=detail, fix=fix)


def _for_joiners(peer: Peer, best: Attempt, here: Here) -> Check:
    host, _, port = best.address.rpartition(":")
    members = f"{host}:{int(port) - 1}"
    detail = f"{best.address} is the port for joiners; members listen at {members}"
    seed = configure("seeds", members, here.begin)
    fix = f"name that port: session-mesh doctor {pasted(members)}, or {seed}"
    return Check(_id("tls", peer), ok=False, detail=detail, fix=fix)


def _relocate(peer: Peer, here: Here) -> str:
    return f"start {peer.name} again, or tell this node where it listens now: {here.name_seed}"


def _greeted(peer: Peer, best: Attempt, here: Here) -> Iterable[Check]:
    greeting = _greeting_of(best)
    if greeting is None:
        why = best.greeting_fault or "another node answers there"
        detail = f"no Hello at {best.greeting_address} ({why}): protocol and clock are not compared"
        fix = (
            f"if {peer.name} admits joiners there (session-mesh status on it shows where), open"
            " that port too"
        )
        return [Check(_id("protocol", peer), ok=None, detail=detail, fix=fix)]
    return [_protocol(peer, greeting, here), _clock(peer, greeting)]


def _greeting_of(best: Attempt | None) -> Greeting | None:
    """Return the Hello that came from the node itself: the port after it may be somebody else's."""
    if best is None or best.shown is None or best.greeting is None:
        return None
    return best.greeting if best.greeting.node_id == best.shown.node_id else None


def _protocol(peer: Peer, greeting: Greeting, here: Here) -> Check:
    check_id = _id("protocol", peer)
    if greeting.protocol == here.protocol:
        return Check(check_id, ok=True, detail=f"both speak protocol {here.protocol}")
    detail = f"it speaks protocol {greeting.protocol}, this node {here.protocol}"
    older = "this machine" if greeting.protocol > here.protocol else peer.name
    fix = f"upgrade session-mesh on {older}, and restart its node"
    return Check(check_id, ok=False, detail=detail, fix=fix)


def _clock(peer: Peer, greeting: Greeting) -> Check:
    check_id, off_s = _id("clock", peer), abs(greeting.ahead_s)
    if off_s <= CLOCK_OFF_S_MAX:
        return Check(check_id, ok=True, detail=f"its clock and this one differ by {span(off_s)}")
    way = "ahead of" if greeting.ahead_s > 0 else "behind"
    detail = f"its clock is {span(off_s)} {way} this machine's: commands and invites may be refused"
    fix = "set the clock that is wrong, there or here: timedatectl set-ntp true"
    return Check(check_id, ok=False, detail=detail, fix=fix)


def _tls(peer: Peer, best: Attempt, here: Here) -> Check:
    check_id = _id("tls", peer)
    if best.shown is not None and best.shown.node_id == here.node_id:
        return Check(check_id, ok=True, detail="not needed: it is this node itself")
    if best.entered is None:
        why = best.refusal or "this home has no certificate to show"
        return Check(check_id, ok=None, detail=f"not tried: {why}", fix="session-mesh join -")
    if best.entered:
        return Check(
            check_id, ok=True, detail="it takes this node's certificate, and proves its own"
        )
    return _turned_away(peer, best, here)


def _turned_away(peer: Peer, best: Attempt, here: Here) -> Check:
    check_id = _id("tls", peer)
    shown = best.shown
    if shown is not None and not shown.valid_from_s <= here.now_s <= shown.valid_until_s:
        late = here.now_s > shown.valid_until_s
        detail = f"its certificate {'has expired' if late else 'is not valid yet'} by this clock"
        again = REJOIN if late else ISSUE_ANEW
        fix = f"compare the clocks; if they are right, on {peer.name} {again}"
        return Check(check_id, ok=False, detail=detail, fix=fix)
    if "CERTIFICATE_VERIFY_FAILED" in best.refusal:
        detail = "it claims this mesh, but the root of this mesh has not signed its certificate"
        return Check(check_id, ok=False, detail=detail, fix=f"on {peer.name} {REJOIN}")
    if "revoked" in best.refusal:
        fix = AGAIN if best.refusal == WITH_ADMITTER else ANEW
        return Check(check_id, ok=False, detail=f"it says: {best.refusal}", fix=fix)
    if peer.state == "alive" and " in time" in best.refusal:
        return _slow(check_id, best.refusal)
    detail = f"it does not take this node's certificate: {best.refusal}"
    fix = (
        "look at the check `certificate`, compare the clocks, and see whether this node was"
        f" expelled; if so, {REJOIN}"
    )
    return Check(check_id, ok=False, detail=detail, fix=fix)


def _link(peer: Peer, here: Here) -> Check:
    check_id = _id("link", peer)
    if peer.linked or peer.node_id == here.node_id:
        detail = "linked" if peer.linked else "a node needs no link with itself"
        return Check(check_id, ok=True, detail=detail)
    if peer.state == "alive":
        return Check(check_id, ok=True, detail="alive, and heard through other nodes")
    if not here.node_runs:
        why = "this node has left the mesh" if here.has_left else "no node is running here"
        return Check(check_id, None, why, here.begin)
    if not peer.state and not peer.trouble:
        return Check(check_id, ok=True, detail="it can be dialled")
    detail = "it can be dialled, but there is no link yet"
    if peer.trouble:
        detail += f"; the last failure was: {peer.trouble}"
    return Check(check_id, None, detail, "wait 20 seconds, then run session-mesh doctor again")


def judge_strangers(strangers: Sequence[tuple[str, str]]) -> list[Check]:
    """Tell of those whom nobody sent us to, in one line if they are many."""
    if len(strangers) <= STRANGERS_SHOWN_MAX:
        return [judge_stranger(*one) for one in strangers]
    names = ", ".join(address for address, _ in strangers[:STRANGERS_SHOWN_MAX])
    more = len(strangers) - STRANGERS_SHOWN_MAX
    detail = f"{len(strangers)} that are no members of this mesh: {names} and {more} more"
    return [Check("strangers", None, detail, "session-mesh status says what is wrong with each")]


def judge_other_meshes(said: str) -> Check:
    """Tell of meshes beside ours on one network, who need nothing; nor do we of them."""
    todo = "nothing to do; a machine that should be in this mesh joins with an invite of it"
    return Check("other_meshes", ok=None, detail=f"{said}: {todo}")


def judge_stranger(address: str, reason: str) -> Check:
    """Tell of somebody whom nobody sent us to: mDNS brings other meshes and unknown nodes."""
    fix = MOVE_IT if "another mesh" in reason else ""
    return Check(f"stranger:{address}", ok=None, detail=f"{address}: {reason}", fix=fix)


def _id(kind: str, peer: Peer) -> str:
    return f"peer_{kind}:{peer.name}"


def _advice(attempt: Attempt, here: Here) -> str:
    """Say what to do where nothing was connected, with the ports and the seed filled in."""
    fix = DIAL_FIX[attempt.dial].replace("{name_seed}", here.name_seed)
    if "{port}" not in fix:
        return fix
    port = attempt.address.rpartition(":")[2]
    try:
        following = str(int(port) + 1)
    except ValueError:  # a member says what it likes of where it listens
        return DIAL_FIX[Dial.FAILED]
    return fix.replace("{port}", port).replace("{next}", following)
