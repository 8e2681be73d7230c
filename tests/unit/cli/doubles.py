"""A mesh that remembers what it was asked, and the rows it answers with."""

from collections.abc import Callable
from dataclasses import dataclass, field

from meshnode.client.errors import (
    NoNodeError,
    SilentNodeError,
)

NOW_S = 1_795_132_800.0
FULL = {"nodes_known": 2, "nodes_heard": 2, "oldest_s": None, "missing": [], "missing_more": 0}
PARTIAL = FULL | {
    "nodes_heard": 1,
    "missing": [{"node_name": "berta", "state": "unreachable", "observed_at": "T"}],
}
BUCKETS = dict.fromkeys(
    ("input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "total"), 0
)
SESSION = {
    "session_id": "abcdefghijklmnopqrstuvwxyz",
    "agent_id": "builder",
    "title": None,
    "node_id": "a" * 52,
    "node_name": "anna",
    "state": "running",
    "phase": "ACTIVE",
    "alive": True,
    "specializations": [],
    "usage": BUCKETS,
    "cost_usd": None,
    "last_activity": "2026-11-20T00:00:00Z",
    "session_epoch": 5,
}


def outcome(**changes):
    return {
        "command_id": "c",
        "session_id": "s",
        "node_id": "n",
        "outcome": "delivered",
        "at": "T",
        "detail": "",
        "receipt": "",
        "receipt_verified": True,
    } | changes


def cost_group(name, value):
    return {
        "key": {name: value},
        "records": 3,
        "sessions": 2,
        "models": ["m", "n"],
        "usage": BUCKETS,
        "cost_usd": None,
    }


@dataclass
class Mesh:
    """Remembers what it was asked; answers are given or simple."""

    calls: list[tuple] = field(default_factory=list)
    sessions: list[dict] = field(default_factory=lambda: [SESSION])
    outcomes: list[dict | BaseException] = field(default_factory=list)
    coverage: dict = field(default_factory=lambda: FULL)
    after_orders: Callable[[], None] | None = None
    missing: bool = False
    silent: bool = False
    members: list[dict] = field(default_factory=list)
    agents: list[dict] = field(default_factory=list)
    more: int = 0  # agents
    environment: dict[str, str] = field(default_factory=dict)

    def __enter__(self):
        if self.missing:
            raise NoNodeError
        if self.silent:
            raise SilentNodeError("7")
        return self

    def __exit__(self, *_):
        pass

    def list_sessions(self, selection=None, limit=None):
        self.calls.append(("list", selection, limit))
        return {"sessions": self.sessions, "coverage": self.coverage}

    def nodes(self, labels=None):
        self.calls.append(("nodes", labels))
        return {"nodes": self.members, "coverage": self.coverage}

    def member_name(self, node_id):
        names = {one["node_id"]: one["name"] for one in self.members}
        return names.get(node_id)

    def forgettable(self, name):
        return next(one for one in self.members if one["name"] == name)

    def forget(self, node):
        self.calls.append(("forget", node["node_id"]))
        return {"node_id": node["node_id"], "name": node["name"]}

    def resolve(self, target):
        self.calls.append(("resolve", target))
        return SESSION

    def cost(self, by=(), since=None, until=None, tz="", prices_at=None, of=("", ""), most=0):
        self.calls.append(
            ("cost", by, since, until, tz, prices_at, *[of] * any(of), *[most] * bool(most))
        )
        days = [cost_group("day", "2026-11-20"), cost_group("day", "2026-11-19")]
        sessions = [cost_group("session", of[1])]
        return {
            "records": 3,
            "sessions": 2,
            "totals": BUCKETS,
            "cost_usd": "1.25",
            "groups": {("day",): days, ("session",): sessions}.get(by)
            or [cost_group("model", "m")],
            "unpriced": [{"model": "m", "records": 1, "total": 9}],
            "tz_exact": not tz.startswith("Asia"),
            "price_source": "shipped",
            "coverage": self.coverage,
        }

    def steer(self, target, **options):
        return self._answer("steer", target, options)

    def kill(self, target, **options):
        return self._answer("kill", target, options)

    def close(self, target, **options):
        return self._answer("close", target, options)

    def suspend(self, target, delivery):
        return self._answer("suspend", target, delivery)

    def resume(self, target, delivery):
        return self._answer("resume", target, delivery)

    def register(self, *entry):
        named = {"agent_id": entry[0], "specialization": entry[1]}
        return named | self._answer("register", *entry)

    def unregister(self, *entry):
        return self._answer("unregister", *entry)

    def find(self, specialization):
        self.calls.append(("find", specialization))
        return {"agents": self.agents, "coverage": self.coverage, "more": self.more}

    def _answer(self, *asked):
        self.calls.append(asked)
        if self.after_orders is not None:
            self.after_orders()
        answer = self.outcomes.pop(0) if self.outcomes else outcome()
        if isinstance(answer, BaseException):
            raise answer
        return answer
