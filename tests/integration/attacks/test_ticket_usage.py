"""Attacks on the ledger from inside a session: what is counted is bounded, once, and one's own."""

import asyncio

import pytest
from integration.attacks.inhabited import inhabited, refused, unchanged
from msgspec.structs import replace

from meshnode.app.sessions import reporting
from meshnode.client.errors import ConflictError, RefusedError, UsageError
from meshnode.client.inside import Inside, Usage
from meshnode.core.ledger.ledger import Slot

USED = Usage(input=100, output=20)


@pytest.fixture
def node():
    yield from inhabited()


async def test_a_repeated_report_counts_once_and_other_numbers_change_nothing(node):
    session, ticket = await node.open("worker")
    async with node.serving():
        assert await node.as_agent(ticket, lambda me: me.report("r1", "m", USED)) is True
        counted = node.ledger()
        assert await node.as_agent(ticket, lambda me: me.report("r1", "m", USED)) is False
        for usage, model in ((replace(USED, input=1), "m"), (USED, "n"), (Usage(), "m")):
            report = lambda me, usage=usage, model=model: me.report("r1", model, usage)  # noqa: E731 - bound here
            await refused(node, ticket, report, ConflictError)
    assert node.ledger() == counted
    (slot,) = [value for key, value in counted if isinstance(value, Slot)]
    assert (slot.records, slot.usage.total, slot.agent) == (1, 120, "worker")
    assert next(key.session for key, value in counted if value is slot) == session


async def test_twenty_reports_of_one_response_at_once_count_once(node):
    _, ticket = await node.open("worker")
    async with node.serving():
        counted = await asyncio.gather(
            *(node.as_agent(ticket, lambda me: me.report("r1", "m", USED)) for _ in range(20))
        )
    assert sum(counted) == 1
    assert sum(value.records for _, value in node.ledger() if isinstance(value, Slot)) == 1


async def test_the_same_id_in_two_sessions_is_two_responses(node):
    one, first = await node.open("worker")
    other, second = await node.open("victim")
    async with node.serving():
        await node.as_agent(first, lambda me: me.report("r1", "m", USED))
        victims_id = f"{other}:r1"
        await node.as_agent(first, lambda me: me.report(victims_id, "m", USED))
        assert await node.as_agent(second, lambda me: me.report("r1", "m", Usage(input=1))) is True
    slots = {key.session: value for key, value in node.ledger() if isinstance(value, Slot)}
    assert (slots[one].records, slots[other].usage.total) == (2, 1)


NONSENSE = [
    Usage(input=-1),
    Usage(input=float("nan")),
    Usage(input=1.5),
    Usage(input=True),
    Usage(output=1 << 64),
    Usage(output=reporting.TOKENS_MAX + 1),
    Usage(web_search=1 << 63),
    Usage(output=5, reasoning=6),
]


@pytest.mark.parametrize("usage", NONSENSE, ids=str)
async def test_numbers_that_no_response_has_are_refused(node, usage):
    _, ticket = await node.open("worker")
    async with node.serving():
        await refused(node, ticket, lambda me: me.report("r1", "m", usage), UsageError)
    unchanged(node)


@pytest.mark.parametrize(("report_id", "model"), [("", "m"), ("r" * 257, "m"), ("r", "m" * 257)])
async def test_texts_that_no_response_has_are_refused(node, report_id, model):
    _, ticket = await node.open("worker")
    async with node.serving():
        await refused(node, ticket, lambda me: me.report(report_id, model, USED), UsageError)
    unchanged(node)


async def test_a_session_reports_so_much_and_no_more_also_after_a_restart(node, monkeypatch):
    monkeypatch.setattr(reporting, "REPORTS_MAX", 5)
    _, ticket = await node.open("worker")
    _, other = await node.open("another")

    def flood(me: Inside) -> int:
        refusals = 0
        for number in range(20):
            try:
                me.report(f"r{number}", "m", USED)
            except RefusedError:
                refusals += 1
        return refusals

    async with node.serving():
        assert await node.as_agent(ticket, flood) == 15
    node.restart()
    async with node.serving():
        assert await node.as_agent(ticket, flood) == 15, "what was counted is known again"
        assert await node.as_agent(other, lambda me: me.report("r", "m", USED)) is True
    assert sum(value.records for _, value in node.ledger() if isinstance(value, Slot)) == 6


async def test_a_session_does_not_swell_every_ledger_with_made_up_models(node, monkeypatch):
    monkeypatch.setattr(reporting, "MODELS_MAX", 2)
    _, ticket = await node.open("worker")
    async with node.serving():
        for model in ("a", "b"):
            await node.as_agent(ticket, lambda me, model=model: me.report(model, model, USED))
        before = node.ledger()
        await refused(node, ticket, lambda me: me.report("c", "c", USED), RefusedError)
    assert node.ledger() == before
