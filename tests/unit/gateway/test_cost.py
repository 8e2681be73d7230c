"""Groups of a cost come in pages, the dearest first, while tokens go on being counted."""

import asyncio

import pytest

from meshnode.core.ids import NodeId
from meshnode.gateway import cost
from meshnode.gateway.pages import Part, part_asked
from meshnode.gateway.problems import Problem
from meshnode.gateway.strict import parse_query
from meshnode.rpc.cost import query_from_wire
from meshnode.v1 import local_service_pb2 as pb
from meshnode.v1 import usage_pb2


def page(monkeypatch, spent: dict[str, str], part: Part, more: int = 0):
    async def counted(_queries, _request):
        return pb.GetCostResponse(
            groups=[
                usage_pb2.CostGroup(key={"model": model}, cost_usd=usd)
                for model, usd in spent.items()
            ],
            groups_more=more,
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


def test_the_group_that_others_are_joined_in_comes_last_however_dear_it_is(monkeypatch):
    spent = {"a": "9", "b": "7.5", "(40 more)": "80"}
    first, behind = page(monkeypatch, spent, Part(1), 40)
    second, behind = page(monkeypatch, spent, behind, 40)
    third, behind = page(monkeypatch, spent, behind, 40)
    assert ([*first, *second, *third], behind) == (list(spent), None)


@pytest.mark.parametrize("most", ["0", "10000", "x", "1.5", "-1"])
def test_how_many_groups_can_be_told_apart_is_said_alike_wherever_it_is_said(most):
    (schema,) = (one["schema"] for one in cost.PARAMETERS if one["name"] == "most")
    least_and_most = f"from {schema['minimum']} to {schema['maximum']}"
    with pytest.raises(Problem, match=f"{least_and_most}$") as refused:
        cost.asked_of(f"by=model&most={most}".encode(), 0.0)
    assert refused.value.status == 400
    asked, _ = cost.asked_of(f"by=model&most={schema['maximum']}".encode(), 0.0)
    assert query_from_wire(asked, NodeId).most == schema["maximum"]
