"""A node that hears some of its peers, for what is asked of it."""

from random import Random

from doubles import ManualClock
from msgspec.structs import replace

from meshnode.app.commands.bearers import Bearer
from meshnode.app.mesh.mesh import Mesh, Self
from meshnode.app.queries.listing import page_of
from meshnode.app.queries.queries import Queries
from meshnode.app.queries.views import Selection
from meshnode.core.control.grants import Grant, SessionKey, grant
from meshnode.core.feeds.own_feed import OwnFeed
from meshnode.core.ids import SessionId, node_id_of, short_id_of
from meshnode.core.keys import Key
from meshnode.core.ledger.ledger import LEDGER, Buckets, Slot, SlotKey
from meshnode.core.ledger.ledger_rows import key_to_row, slot_to_row
from meshnode.core.ledger.prices import Priced, Rates
from meshnode.core.membership.genesis import Genesis
from meshnode.core.membership.members import (
    LINKS,
    NODE,
    ONLY_ROW,
    LinksRecord,
    NodeRecord,
    links_to_row,
    node_to_row,
)
from meshnode.core.sessions.sessions import SESSIONS, SessionRecord, State, session_to_row

chance = Random(15).randbytes
KEYS = sorted((Key.new(chance) for _ in range(4)), key=lambda key: node_id_of(key.public))
IDS = [node_id_of(key.public) for key in KEYS]
GENESIS = Genesis((KEYS[0].public,), 1, "test", bytes(16))
NAMES = ["me", "linked", "beyond", "away"]


class OnePrice:
    """A million nano-dollars for a million input tokens of any model but one."""

    def rates(self, model: str, provider: str, tier: str, at_s: float) -> Priced | None:
        del provider, tier, at_s
        return None if model == "free" else Priced(Rates(input_pusd=1000), "table", model)

    def is_steady(self, model: str, provider: str, tier: str, day_s: int) -> bool:
        del model, provider, tier, day_s
        return False

    def source_text(self) -> str:
        return "table"


class Viewer:
    """A node that hears two of its three peers: one by a link, one through that one."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        steady_s = self.clock.steady_s()
        self.mesh = Mesh(
            GENESIS, Self(KEYS[0], 1, Random(1), lambda s: s - steady_s + self.clock.now_s)
        )
        self.queries = Queries(self.mesh, OnePrice(), self.clock)
        self.feeds = {IDS[0]: self.mesh.own}
        for key, peer in list(zip(KEYS, IDS, strict=True))[1:]:
            self.feeds[peer] = OwnFeed(key, GENESIS.mesh_id, GENESIS.limits, 1)
            self.mesh.replication.replicas[peer] = self.feeds[peer]
        edges = {0: [1], 1: [0, 2], 2: [1], 3: [0]}
        self.mesh.linked(IDS[1], steady_s, dialled=True)
        for number, peers in edges.items():
            record = NodeRecord(NAMES[number], labels={"room": "ab"[number % 2]})
            self.put(number, NODE, ONLY_ROW, node_to_row(record))
            marks = frozenset(short_id_of(IDS[peer]) for peer in peers)
            self.put(number, LINKS, ONLY_ROW, links_to_row(LinksRecord(marks)))
        self.judge()

    def put(self, number: int, table: str, key: bytes, value: bytes | None) -> None:
        feed = self.feeds[IDS[number]]
        feed.write(table, key, value)
        feed.flush(self.clock.wall_s() - 60)

    def judge(self) -> None:
        self.mesh.recall(self.clock.steady_s())

    def session(
        self, number: int, name: str, state: State = State.RUNNING, **fields: object
    ) -> str:
        now_s = self.clock.wall_s()
        record = SessionRecord(SessionId(name), 1, f"agent-{name}", state, now_s, now_s)
        ended = {"ended_at_s": now_s} if record.ended else {}
        record = replace(record, **{**ended, **fields})  # type: ignore[arg-type] # fields by name
        self.put(number, SESSIONS, name.encode(), session_to_row(record))
        return name

    def spend(
        self, number: int, session: str, tokens: int, model: str = "m", slot: int = 5
    ) -> None:
        key = SlotKey(session, model, "standard", slot)
        row = slot_to_row(Slot(1, Buckets(input=tokens)))
        self.put(number, LEDGER, key_to_row(key), row)

    def listed(self, **selection: object) -> list[str]:
        views, _ = page_of(self.queries, Selection(**selection))  # type: ignore[arg-type] # fields by name
        return [view.record.session_id for view in views]

    def bearer(self, *actions: str, **limits: object) -> Bearer:
        """Make somebody with a key of the root's."""
        key, now_s = Key.new(chance), int(self.clock.now_s)
        given = Grant(
            mesh=GENESIS.mesh_id,
            issuer=KEYS[0].public,
            subject=key.public,
            actions=actions,
            not_before_s=now_s - 60,
            expires_s=now_s + 3600,
            grant_id=bytes(16),
            **limits,  # type: ignore[arg-type] # fields by name
        )
        return Bearer(SessionKey(key, (grant(KEYS[0], given),)), (given,), "operator", IDS[0])
