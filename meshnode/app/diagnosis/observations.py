"""What `doctor` observes, before anything is judged: plain facts, whoever gathered them.

Invariant: nothing here says whether a fact is good or bad; `diagnosis` and `peer_diagnosis` do.
"""

from __future__ import annotations

from enum import StrEnum
from math import inf

import msgspec


class Dial(StrEnum):
    """What became of a TCP connection."""

    CONNECTED = "connected"
    REFUSED = "refused"
    SILENT = "silent"
    NO_ROUTE = "no_route"
    NO_NAME = "no_name"
    FAILED = "failed"


class Shown(msgspec.Struct, frozen=True):
    """Whom the certificate at an address names: a claim, proved only by `entered`."""

    node_id: str
    mesh_id: str
    valid_from_s: float
    valid_until_s: float


class Greeting(msgspec.Struct, frozen=True):
    """A Hello. `ahead_s`: of our clock, in seconds."""

    node_id: str
    mesh_id: str
    protocol: int
    ahead_s: float


class Attempt(msgspec.Struct, frozen=True):
    """All that was observed at one address.

    `ip`: which one it was that took the connection, where a name has several.
    `entered`: whether the members' port took our certificate; None when it was not tried.
    `for_joiners`: a Hello is answered at this very address, as only the joiners' port does.
    """

    address: str
    dial: Dial
    detail: str = ""  # in words, when it did not connect
    ip: str = ""
    shown: Shown | None = None
    silence: str = ""  # in words, when it connected and showed no certificate
    greeting: Greeting | None = None
    greeting_address: str = ""
    greeting_fault: str = ""
    entered: bool | None = None
    refusal: str = ""
    for_joiners: bool = False


class CertificateFacts(msgspec.Struct, frozen=True):
    """A node's membership as it stands on the disk. Times are seconds since 1970."""

    valid_from_s: float
    valid_until_s: float
    is_for_our_key: bool
    chains_to_root: bool
    renewal_from_s: float = inf


class Edition(msgspec.Struct, frozen=True):
    """Which session-mesh a process runs; a source tree has no build, and not all say a schema."""

    version: str
    build: str = ""
    schema: int = 0

    def __str__(self) -> str:
        build = f"build {self.build}" if self.build else ""
        schema = f"database {self.schema}" if self.schema else ""
        more = ", ".join(filter(None, (build, schema)))
        return f"{self.version} ({more})" if more else self.version


class NodeFacts(msgspec.Struct, frozen=True):
    """What a running node said of itself.

    `answers_s`: how long each of a few questions took; `lag_s`: how late its loop ran lately.
    """

    name: str
    node_id: str
    pid: int
    edition: Edition
    mdns: str
    heard_by_mdns: int
    links: int
    listen: str  # host:port that members reach it at, on this machine
    answers_s: tuple[float, ...] = ()
    lag_s: float = 0.0


class OwnAddress(msgspec.Struct, frozen=True):
    """An address that others are told, tried from here. `is_local`: an interface carries it."""

    is_local: bool
    is_loopback: bool
    attempt: Attempt


class MulticastFacts(msgspec.Struct, frozen=True):
    """On which interfaces a question asked of all came back to us, and on which it did not.

    All of it empty: there is none that carries IPv4.
    """

    heard_on: tuple[str, ...] = ()
    silent_on: tuple[str, ...] = ()
    fault: str = ""


class ClockFact(msgspec.Struct, frozen=True):
    """How far ahead of ours a peer's clock is, in seconds."""

    peer: str
    ahead_s: float
