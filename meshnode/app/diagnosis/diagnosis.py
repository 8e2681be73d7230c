"""What is wrong with a home and its node, judged from facts that somebody else has observed.

Invariant: every function here is pure, and every check that is not well names what to do about it.
`ok` is None where nothing could be said: no node runs, nobody told the time, it is switched off.
Other nodes are judged in `peer_diagnosis`.
"""

from __future__ import annotations

from shlex import quote
from statistics import median
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from meshnode.app.diagnosis.observations import MulticastFacts
from meshnode.core.ids import pasted
from meshnode.core.membership.certificates import EXPIRES_SOON_S

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from meshnode.app.audit.alarms import Alarm
    from meshnode.app.diagnosis.observations import (
        Attempt,
        CertificateFacts,
        ClockFact,
        Edition,
        NodeFacts,
        OwnAddress,
    )
    from meshnode.core.errors import MeshError

# A command's times are judged with 120 s of tolerance (core/commands/commands.py). Two clocks that
# are each 60 s off, in opposite directions, still agree; a larger difference will one day refuse a
# command.
CLOCK_OFF_S_MAX = 60.0
LOOP_LAG_S_MAX = 1.0  # peers drop a link after three silent seconds
NAMED_MAX = 8  # in one sentence; then how many more
NO_NODE = "no node is running"
START = "session-mesh up --detach"
FREE_MACHINE = "free this machine's processor, memory or disk for the node"
RESTART = "session-mesh down --keep-sessions, then session-mesh up --detach"
REJOIN = "join again with a new invite: session-mesh join -"
RENEWS = f"let this node reach one that admits (session-mesh nodes shows who is alive); or {REJOIN}"
RENAME = (
    "call this one otherwise: session-mesh down --keep-sessions, then session-mesh up --detach"
    " --name NODE"
)
ISSUE_ANEW = f"start the node again, if it admits others: that makes a new one; else {REJOIN}"
SET_CLOCK = "set this machine's clock: timedatectl set-ntp true"


def configure(key: str, value: str = "HOST:PORT", then: str = RESTART) -> str:
    """Say how a node gets an address for good: as a flag it would hold for one run.

    One in brackets is quoted, as YAML wants it.
    """
    return f"write {quote(value)} under {key}: in config.yaml, then {then}"


ADVERTISE = configure("advertise")
NAME_A_NODE = f"name a node instead: {configure('seeds')}"


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at. `id` is a kind, or kind:peer; `fix` is imperative."""

    id: str
    ok: bool | None
    detail: str
    fix: str = ""


def from_error(check_id: str, error: MeshError) -> Check:
    """Turn what a file was refused with into a check."""
    return Check(check_id, ok=False, detail=error.message, fix=error.hint or REJOIN)


def unknown(check_id: str, why: str, fix: str = "") -> Check:
    """Say that nothing can be said."""
    return Check(check_id, ok=None, detail=why, fix=fix)


def judge_certificate(facts: CertificateFacts, now_s: float) -> Check:
    """Judge whether this home's certificates make its node a member now."""
    left_s = facts.valid_until_s - now_s
    if not facts.is_for_our_key:
        return _no("certificate", "node.crt was issued for another key than node.key", REJOIN)
    if not facts.chains_to_root:
        return _no("certificate", "node.crt does not lead to the root of this mesh", REJOIN)
    if now_s < facts.valid_from_s:
        early = span(facts.valid_from_s - now_s)
        said = f"valid only in {early}: this machine's clock is behind, or its issuer's was ahead"
        return _no("certificate", said, f"{SET_CLOCK}; if it is right, {ISSUE_ANEW}")
    if left_s <= 0:
        said = f"expired {span(-left_s)} ago, by this machine's clock"
        return _no("certificate", said, f"{SET_CLOCK}; if it is right, {REJOIN}")
    fix = RENEWS if left_s < EXPIRES_SOON_S else ""
    detail = f"a member of this mesh for another {span(left_s)}"
    if now_s > facts.renewal_from_s:
        detail += "; a new certificate is due, and comes with the next node reached that admits"
    return Check("certificate", ok=True, detail=detail, fix=fix)


def judge_silence(pid: str, waited_s: float, *, is_stopped: bool) -> Check:
    """Judge a node that holds its socket and says nothing."""
    said = f"the node (pid {pid}) does not answer"
    if is_stopped:
        return _no("node", f"{said}: its process is stopped", f"let it go on: kill -CONT {pid}")
    fix = f"wait a minute; if it stays so, end it: kill -KILL {pid}, then {START}"
    return _no("node", f"{said} in {waited_s:g} s", fix)


def judge_version(facts: NodeFacts, ours: Edition) -> Check:
    """Judge whether node and command line are of one version and build."""
    if facts.edition == ours:
        return _yes("version", f"node and command line are {ours}")
    theirs = str(facts.edition)
    if theirs == ours.version:  # and no more than that
        theirs += " of an older build, which does not say which"
    return _no("version", f"the node runs {theirs}, this command line is {ours}", RESTART)


def judge_loop(facts: NodeFacts) -> Check:
    """Judge how promptly the node answers its own user."""
    if not facts.answers_s:
        return unknown("loop_lag", "the node was not asked often enough")
    slowest_s = max(facts.answers_s)
    if slowest_s > LOOP_LAG_S_MAX:
        said = f"the node took {span(slowest_s)} to answer: peers drop links after 3 silent seconds"
        return _no("loop_lag", said, FREE_MACHINE)
    answers = f"the node answers within {slowest_s * 1000:.0f} ms"
    if facts.lag_s > LOOP_LAG_S_MAX:
        was = f"this process was held up for {span(facts.lag_s)} within the last minute"
        why = "(stopped, swapped out, or the machine slept)"
        fix = f"if that comes again, {FREE_MACHINE}"
        return unknown("loop_lag", f"{was} {why}; now {answers}", fix)
    return _yes("loop_lag", answers)


def judge_alarms(alarms: Sequence[Alarm]) -> list[Check]:
    """Make a check that fails of every alarm that the node has raised."""
    if not alarms:
        return [_yes("alarms", "none")]
    return [_no(f"alarm:{alarm.id}", alarm.detail, alarm.fix) for alarm in alarms]


def judge_budgets(budgets: Sequence[Mapping[str, str]]) -> Check:
    """Say which budgets press. One that is exceeded is at work: that is no fault of the node."""
    pressed = [
        f"{one['name']} {one['state']} ({one['reason']})" for one in budgets if one["state"] != "ok"
    ]
    if not pressed:
        return _yes("budgets", f"{len(budgets)} set, none exceeded" if budgets else "none is set")
    fix = "session-mesh budget list shows whom they hold; session-mesh resume lets one run on"
    return unknown("budgets", named(pressed), fix)


def judge_name(name: str, namesakes: Sequence[str]) -> list[Check]:
    """Say who else goes by the name of this node, by their ids; no word where nobody does."""
    if not namesakes:
        return []
    said = f"other members are called {name} too: {named(namesakes)}"
    return [unknown("name", said, RENAME)]


def judge_disk(summary: str, members: int) -> Check:
    """Judge what a stopped node's database holds. `summary` says what is damaged, if anything."""
    if summary:
        fix = f"{START}: it leaves that out, and peers return it"
        return _no("database", summary, fix)
    return _yes("database", f"readable, and as signed; members on it: {members}")


def judge_agents(why_no_groups: str) -> Check:
    """Judge how surely a kill finds all of an agent's processes; empty: by cgroups."""
    if not why_no_groups:
        said = "each session has a cgroup of its own: a kill finds whatever its agent started"
        return _yes("agents", said)
    said = (
        f"no cgroups for sessions ({why_no_groups}): a kill walks the tree of processes, and does"
        " not find what hid itself before its supervisor was killed"
    )
    fix = "start them in a delegated one: systemd-run --user --scope -p Delegate=yes"
    return unknown("agents", said, fix)


def judge_logs(unread: Collection[str]) -> list[Check]:
    """Judge whether what agents write into logs of their own is counted; all well says nothing."""
    if not unread:
        return []
    names = ", ".join(sorted(unread))
    said = f"agents here write their usage into logs that are not followed: {names}"
    named = ", ".join(f"{{source: {one}}}" for one in sorted(unread))
    fix = f"let the node count it for their sessions: in config.yaml, ingest: [{named}]"
    return [unknown("usage_logs", said, fix)]


def judge_listening(addresses: Sequence[OwnAddress], self_id: str) -> Check:
    """Judge whether others can find this node where it tells them to."""
    if not addresses:
        fix = f"give it one: {configure('listen')}"
        return _no("listening", "the node tells nobody where it listens", fix)
    faults = [_fault_of(one, self_id) for one in addresses]
    bad = [fault for fault in faults if fault]
    if bad and len(bad) == len(faults):
        fix = f"advertise an address that leads here: {ADVERTISE}"
        return _no("listening", "; ".join(bad), fix)
    reached = [one.attempt.address for one in addresses if one.attempt.shown is not None]
    notes = [*bad, *_reach_notes(addresses)]
    if not reached:  # as behind address translation, or where an address is another machine's now
        tried = "; ".join([_unreached(one.attempt) for one in addresses] + notes)
        fix = f"see from another machine: session-mesh doctor; or, of what leads here, {ADVERTISE}"
        return unknown("listening", f"not reached from here: {tried}", fix)
    listed = ", ".join(one.attempt.address for one in addresses)
    detail = f"advertised are {listed}" if bad else f"reached from here at {', '.join(reached)}"
    return _yes("listening", "; ".join([detail, *notes]))


def _fault_of(own: OwnAddress, self_id: str) -> str:
    attempt = own.attempt
    if attempt.shown is not None:
        if attempt.shown.node_id == self_id:
            return ""
        return f"at {attempt.address} another node listens ({attempt.shown.node_id[:10]})"
    if not own.is_local:
        return ""  # behind address translation a machine often cannot reach itself
    return _unreached(attempt)


def _unreached(attempt: Attempt) -> str:
    return f"{attempt.address} {attempt.silence or attempt.detail}"


def _reach_notes(addresses: Sequence[OwnAddress]) -> list[str]:
    if all(one.is_loopback for one in addresses):
        return ["only this machine can reach it there"]
    foreign = [one.attempt.address for one in addresses if not one.is_local]
    if not foreign:
        return []
    return [f"no interface of this machine carries {', '.join(foreign)}: forward it to here"]


def judge_joiners(attempt: Attempt, self_id: str, members: str) -> Check:
    """Judge whether strangers with an invite, and peers with doubts, get an answer on this machine.

    `members`: where the members' port is bound, as host:port.
    """
    greeting = attempt.greeting
    if greeting is None:
        said = f"no Hello at {attempt.greeting_address}: {attempt.greeting_fault}"
        is_about_time = "CERTIFICATE_VERIFY_FAILED" in attempt.greeting_fault
        fix = "see the check `certificate`, and whether the clock is right" if is_about_time else ""
        return _no("joiners_port", said, fix or RESTART)
    if greeting.node_id != self_id:
        said = f"another node ({greeting.node_id[:10]}) answers at {attempt.greeting_address}"
        return _no("joiners_port", said, RESTART)
    said = f"Hello is answered at {attempt.greeting_address}"
    port, usual = _port_of(attempt.greeting_address), _port_of(members) + 1
    if port != usual:
        said += f", not on port {usual}: firewalls and routers must let {port} through"
    return _yes("joiners_port", said)


def _port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def judge_clock(facts: Sequence[ClockFact]) -> Check:
    """Judge this machine's clock by what most peers say; with one alone either may be wrong."""
    if not facts:
        return unknown("clock", "no peer told its time")
    near = [fact for fact in facts if abs(fact.ahead_s) <= CLOCK_OFF_S_MAX]
    off = [fact for fact in facts if fact not in near]
    ahead = [fact for fact in off if fact.ahead_s > 0]
    agreeing = ahead if len(ahead) * 2 > len(off) else [fact for fact in off if fact not in ahead]
    if len(agreeing) * 2 <= len(facts):
        return _not_this_clock(near, [fact.peer for fact in off])
    way, peers = "behind" if agreeing == ahead else "ahead of", [fact.peer for fact in agreeing]
    off_s = abs(median(fact.ahead_s for fact in agreeing))
    said = f"this machine's clock is about {span(off_s)} {way} {named(peers)}"
    if len(facts) == 1:
        fix = f"{SET_CLOCK}; do the same on {named(peers)}: one of the two is wrong"
        return _no("clock", said, fix)
    return _no("clock", said, SET_CLOCK)


def _not_this_clock(near: Sequence[ClockFact], off: Sequence[str]) -> Check:
    if not near:
        said = f"some peers are ahead and some behind, so it is they that disagree: {named(off)}"
        return unknown("clock", said)
    worst_s = max(abs(fact.ahead_s) for fact in near)
    said = f"within {max(worst_s, 0.1):.1f} s of {named([fact.peer for fact in near])}"
    return _yes("clock", said + (f", but not of {named(off)}" if off else ""))


def judge_multicast(facts: NodeFacts, observed: MulticastFacts | None, *, alone: bool) -> Check:
    """Judge whether nodes on this network can find each other. `alone`: no other member is known.

    Without mDNS nothing is wrong: seeds and neighbours' hints are ways too.
    """
    if facts.mdns == "off":
        return unknown("multicast", "mDNS is off: seeds and neighbours tell where nodes are")
    if facts.mdns.startswith("unavailable"):
        return _no("multicast", f"mDNS is {facts.mdns}", NAME_A_NODE)
    return _judge_observed(facts, observed, alone=alone)


def _judge_observed(facts: NodeFacts, observed: MulticastFacts | None, *, alone: bool) -> Check:
    if observed is None:
        return unknown("multicast", f"mDNS is {facts.mdns}; its network was not tried")
    if observed == MulticastFacts():
        said = "this machine is on no IPv4 network, and mDNS is announced over IPv4 only"
        return unknown("multicast", said, NAME_A_NODE)
    if observed.fault or not observed.heard_on:
        said = observed.fault or f"nothing came back on {named(observed.silent_on)}"
        fix = f"let UDP port 5353 and 224.0.0.251 through the firewall, or {NAME_A_NODE}"
        return _no("multicast", f"this machine does not hear its own multicast: {said}", fix)
    check = _multicast_heard(facts, observed)
    if facts.heard_by_mdns or facts.links or alone:
        return check
    fix = f"let UDP port 5353 through between the machines, or {NAME_A_NODE}"
    return replace(check, ok=None, fix=fix)


def _multicast_heard(facts: NodeFacts, observed: MulticastFacts) -> Check:
    count = facts.heard_by_mdns
    heard = f"{count} announcement{'s' if count > 1 else ''}" if count else "nobody"
    detail = f"mDNS is {facts.mdns} and has heard {heard}; multicast works on "
    detail += named(observed.heard_on)
    if observed.silent_on:
        detail += f", not on {named(observed.silent_on)}"
    return _yes("multicast", detail)


def judge_not_checked(peers: Sequence[tuple[str, str]]) -> Check:
    """Name the peers that there was no room for: name or address, and node id if that is known."""
    names = [name for name, _ in peers]
    chosen = " ".join(pasted(*peer) for peer in peers[:NAMED_MAX])
    return unknown("peers", f"not checked: {named(names)}", f"ask: session-mesh doctor {chosen}")


def named(names: Sequence[str]) -> str:
    """List names, at most NAMED_MAX of them."""
    more = len(names) - NAMED_MAX
    listed = ", ".join(names[:NAMED_MAX])
    return f"{listed} and {more} more" if more > 0 else listed


def span(seconds: float) -> str:
    """Say how long a time is: 3.2 s, 5 min, 2 h, 40 d."""
    for unit_s, unit in ((2 * 86400, "d"), (2 * 3600, "h"), (120, "min")):
        if seconds >= unit_s:
            return f"{seconds / (unit_s / 2):.0f} {unit}"
    return f"{seconds:.1f} s"


def _yes(check_id: str, detail: str) -> Check:
    return Check(check_id, ok=True, detail=detail)


def _no(check_id: str, detail: str, fix: str) -> Check:
    return Check(check_id, ok=False, detail=detail, fix=fix)
