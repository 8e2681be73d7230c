"""Groups of a cost come in pages, the dearest first, while tokens go on being counted."""

import asyncio

from meshnode.gateway import cost
from meshnode.gateway.pages import Part, part_asked
from meshnode.gateway.strict import parse_query
from meshnode.v1 import local_service_pb2 as pb
from meshnode.v1 import usage_pb2


def page(monkeypatch, spent: dict[str, str], part: Part):
    async def counted(_queries, _request):
        return pb.GetCostResponse(
            groups=[
                usage_pb2.CostGroup(key={"model": model}, cost_usd=usd)
                for model, usd in spent.items()
            ]
        )

    monkeypatch.setattr(cost, "cost_in_pieces", counted)
    said = asyncio.run(cost.answer(None, pb.GetCostRequest(by=["model"]), part))
    behind = said["next"] and part_asked(
        parse_query(f"limit={part.limit}&next={said['next']}".encode(), ("limit", "next"))
    )
    return [group["key"]["model"] for group in said["groups"]], behind


def test_what_is_counted_between_two_pages_neither_loses_nor_doubles_other_groups(monkeypatch):
    first, behind = page(monkeypatch, {"a": "9", "b": "7.5", "c": "7", "d": "6", "e": ""}, Part(2))
    assert first == ["a", "b"]
    # a new one is dearest, which moves the others by a place; `b` grew, `d` overtook `c`
    now = {"new": "10", "a": "9", "b": "8", "d": "7.2", "c": "7", "e": ""}
    second, behind = page(monkeypatch, now, behind)
    assert second == ["d", "c"]
    assert page(monkeypatch, now, behind) == (["e"], None)


def test_groups_that_cost_the_same_are_told_apart_by_their_names(monkeypatch):
    same = dict.fromkeys("abcde", "1")
    first, behind = page(monkeypatch, same, Part(3))
    assert first + page(monkeypatch, same, behind)[0] == list("abcde")
