"""The routes: each takes a request apart, calls one use case and words its answer.

Invariant: 401 comes before 400, 404 and 403; nothing here decides who may do what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from meshnode.app.pieces import in_pieces
from meshnode.app.queries.listing import BY_RECORD, BY_SPENT, FILTERS, NEXT, PAGE_MAX
from meshnode.app.queries.specialists import Specialists
from meshnode.client.keys.authority import Scope, checked_actions, described
from meshnode.client.keys.handed import checked_label
from meshnode.client.keys.keyring import child_of
from meshnode.client.messages import to_plain
from meshnode.client.public import public, with_names_of_the_monitor
from meshnode.client.targets.targets import Target
from meshnode.client.targets.wishes import MESSAGE_BYTES_MAX, steer_args
from meshnode.core.commands.steers import MODES
from meshnode.core.control.grants import GRANT_TTL_S_MAX
from meshnode.core.sessions.registry import TEXT_CHARS_MAX, specialist
from meshnode.core.sessions.specializations import check_specialization
from meshnode.gateway import cost
from meshnode.gateway.metrics import MEDIA_TYPE as METRICS
from meshnode.gateway.openapi import ID, in_header, in_path, query, route
from meshnode.gateway.pages import BEHIND, PART, coverage_for, node_for, part_asked
from meshnode.gateway.problems import answer_of, json_response, off
from meshnode.gateway.repeats import HEADER, WORD, id_given
from meshnode.gateway.strict import about, check_path, parse_query
from meshnode.rpc.local import list_nodes
from meshnode.rpc.views import agent_to_wire, coverage_to_wire
from meshnode.v1 import local_service_pb2 as pb

if TYPE_CHECKING:
    import re
    from collections.abc import Callable

    from meshnode.app.ports import Clock
    from meshnode.app.queries.queries import Queries
    from meshnode.core.ids import Chance
    from meshnode.gateway.acting import Actor
    from meshnode.gateway.desk import Desk
    from meshnode.gateway.metrics import Metrics
    from meshnode.gateway.pages import Pages
    from meshnode.gateway.strict import Fields

    Plain = dict[str, Any]

MESH = "/api/session-mesh"
KEY_TTL_S = 3600
LABELS: Plain = {
    "type": "array",
    "items": {"type": "string", "pattern": "^[^=]+=", "maxLength": 512},
    "minItems": 1,
    "maxItems": 64,
}


def _paging(form: re.Pattern[str]) -> tuple[Plain, ...]:
    count = {"type": "integer", "minimum": 1, "maximum": PAGE_MAX}
    place = {"type": "string", "pattern": f"^{form.pattern}$"}
    return (
        query("limit", "At most so many.", count),
        query("next", "What the page before ended with.", place),
    )


PAGING = _paging(BEHIND)
LIST_PARAMETERS = (
    query("filter", "Which sessions.", {"type": "string", "enum": list(FILTERS)}),
    query("specialization", "Fixed at the session's start."),
    query("node", "Name or id of a node."),
    query("owner", "A person or team."),
    query("agent_id", "An agent, exactly."),
    query("label", "K=V; repeat for more.", LABELS),
    query("sort", "The order.", {"type": "string", "enum": [*BY_RECORD, *BY_SPENT]}),
    *_paging(NEXT),
)
PLACE = (query("specialization", "Exactly."), query("agent_id", "Exactly."))
NODE = query("node", "The agent's node, if it lives on several.")
FORCE = query("force", "Without grace.", {"type": "boolean"})
AGENT_PATH = in_path("agent_id", "An agent, exactly.")
SESSION_PATH = in_path("session_id", "A whole session id.")
COMMAND_ID = query("command_id", "That of an earlier answer: it acts once.", ID)
ONCE = in_header(HEADER, "A word of the caller's own for this order: it acts once.", WORD)
STEER = ("agent_id", "session_id", "direction", "message", "mode", "node", "command_id")
ORDERED = (404, 409, 502, 504)


class Parts(msgspec.Struct, frozen=True):
    """What the routes are made of. `health` describes this node in a few words."""

    desk: Desk
    actor: Actor
    pages: Pages
    queries: Queries
    clock: Clock
    chance: Chance
    health: Callable[[], Plain]
    metrics: Metrics


def routes(parts: Parts) -> APIRouter:
    """Return all routes but for the document that describes them."""
    router = APIRouter()
    _add_reading(router, parts)
    _add_sessions(router, parts)
    _add_orders(router, parts)
    _add_registry(router, parts)
    _add_keys(router, parts)
    return router


def _add_reading(router: APIRouter, parts: Parts) -> None:
    @router.get("/health", **route("Whether this node serves, and how full it is.", "Health"))
    async def health(request: Request) -> Response:
        del request
        return json_response(parts.health())

    @router.get("/metrics", **route("Metrics of this node, for Prometheus.", "", media=METRICS))
    async def metrics(request: Request) -> Response:
        parts.desk.bearer(request).check_everywhere("metrics")  # it has sums over the whole mesh
        return Response(await parts.metrics.page(), media_type=METRICS)

    @router.get(
        MESH + "/nodes",
        **route(
            "The members of the mesh.",
            "Nodes",
            parameters=(query("label", "K=V; repeat for more.", LABELS), *PAGING),
        ),
    )
    async def nodes(request: Request) -> Response:
        bearer = parts.desk.bearer(request)
        asked = parse_query(request.scope["query_string"], ("label", *PART), ("label",))
        labels, part = asked.pairs("label"), part_asked(asked)
        bearer.check("read")
        listed = to_plain(list_nodes(parts.queries, pb.ListNodesRequest(labels=labels)))
        seen = [one for one in listed["nodes"] if bearer.may_see_node(one["node_id"])]
        shown, following = part.of(
            ((int(not one["self"]), one["name"], one["node_id"]), one) for one in seen
        )
        page = {"nodes": [node_for(bearer, one) for one in shown], "next": following}
        coverage = coverage_for(bearer, listed["coverage"])
        return json_response(listed | page | {"coverage": coverage})

    @router.get(
        MESH + "/cost",
        **route(
            "What the mesh has spent.", "Cost", 404, 409, parameters=(*cost.PARAMETERS, *PAGING)
        ),
    )
    async def spent(request: Request) -> Response:
        bearer = parts.desk.bearer(request)
        asked, part = cost.asked_of(request.scope["query_string"], parts.clock.wall_s())
        bearer.check_everywhere("read")
        return json_response(await cost.answer(parts.queries, asked, part))


def _add_sessions(router: APIRouter, parts: Parts) -> None:
    @router.get(
        MESH + "/alive",
        **route(
            "Sessions; those alive unless told.", "Sessions", 404, 409, parameters=LIST_PARAMETERS
        ),
    )
    async def alive(request: Request) -> Response:
        return await _page(parts, request, "alive")

    @router.get(
        "/sessions",
        **route("Sessions not ended, or lately.", "Sessions", 404, 409, parameters=LIST_PARAMETERS),
    )
    async def sessions(request: Request) -> Response:
        return await _page(parts, request, "")

    @router.get(
        "/sessions/{session_id}",
        **route("One session.", "SessionDetail", 404, parameters=(SESSION_PATH,)),
    )
    async def session(request: Request, session_id: str) -> Response:
        bearer = parts.desk.bearer(request)
        parse_query(request.scope["query_string"], ())
        check_path("session_id", session_id)
        found = await parts.actor.find(bearer, Target(session_id=session_id), "read")
        return json_response(with_names_of_the_monitor(public(found)))


async def _page(parts: Parts, request: Request, chosen: str) -> Response:
    bearer = parts.desk.bearer(request)
    names = tuple(str(one["name"]) for one in LIST_PARAMETERS)
    asked = parse_query(request.scope["query_string"], names, ("label",))
    wanted = pb.ListSessionsRequest(
        filter=asked.choice("filter", FILTERS, chosen) if chosen or asked.text("filter") else "",
        specialization=asked.text("specialization"),
        node=asked.text("node"),
        owner=asked.text("owner"),
        agent_id=asked.text("agent_id"),
        labels=asked.pairs("label"),
        sort=asked.choice("sort", (*BY_RECORD, *BY_SPENT), "updated"),
        limit=asked.count("limit", PAGE_MAX),
        next=asked.place("next", NEXT),
    )
    bearer.check("read")
    await in_pieces(parts.pages.settle())
    return Response(parts.pages.get(wanted, bearer), media_type="application/json")


def _add_orders(router: APIRouter, parts: Parts) -> None:
    @router.post(
        MESH + "/steer",
        **route(
            "Redirect an agent.",
            "Outcome",
            *ORDERED,
            408,
            410,
            415,
            parameters=(ONCE,),
            body="Steer",
        ),
    )
    async def steer(request: Request) -> Response:
        bearer, said = await parts.desk.posted(request)
        target, args = _steer_of(said)
        command_id = id_given(request, bearer, said.text("command_id"))
        return answer_of(await parts.actor.steer(bearer, target, args, command_id))

    @router.delete(
        MESH + "/agents/{agent_id}",
        **route(
            "End an agent.",
            "Killed",
            *ORDERED,
            parameters=(AGENT_PATH, FORCE, NODE, COMMAND_ID, ONCE),
        ),
    )
    async def kill(request: Request, agent_id: str) -> Response:
        bearer = parts.desk.bearer(request)
        asked = parse_query(request.scope["query_string"], ("force", "node", "command_id"))
        check_path("agent_id", agent_id)
        target = Target(agent_id=agent_id, node=asked.text("node"))
        force = asked.flag("force")
        command_id = id_given(request, bearer, asked.text("command_id"))
        return answer_of(await parts.actor.kill(bearer, target, command_id, force=force))

    @router.delete(
        "/sessions/{session_id}",
        **route(
            "End a session at once.",
            "Killed",
            *ORDERED,
            parameters=(SESSION_PATH, COMMAND_ID, ONCE),
        ),
    )
    async def end(request: Request, session_id: str) -> Response:
        bearer = parts.desk.bearer(request)
        asked = parse_query(request.scope["query_string"], ("command_id",))
        command_id = id_given(request, bearer, asked.text("command_id"))
        check_path("session_id", session_id)
        target = Target(session_id=session_id)
        return answer_of(await parts.actor.kill(bearer, target, command_id, force=True))


def _steer_of(said: Fields) -> tuple[Target, Plain]:
    said.check_known(STEER)
    target = Target(
        session_id=said.text("session_id"),
        agent_id=said.text("agent_id"),
        node=said.text("node"),
    )
    if bool(target.session_id) == bool(target.agent_id):
        why = "not both" if target.agent_id else "one of them is needed"
        raise off("agent_id", f"name an agent_id or a session_id, {why}")
    direction = said.text("direction")
    message = said.text("message", chars_max=MESSAGE_BYTES_MAX)
    if not direction and not message:
        raise off("direction", "nothing to say: give a direction or a message")
    mode = said.choice("mode", MODES, MODES[0]) if said.text("mode") else ""
    with about("message"):
        return target, steer_args(message, direction, mode)


def _add_registry(router: APIRouter, parts: Parts) -> None:
    @router.post(
        MESH + "/registry",
        **route("Register an agent.", "Registered", *ORDERED, 408, 415, body="Register"),
    )
    async def register(request: Request) -> Response:
        bearer, said = await parts.desk.posted(request)
        said.check_known(("specialization", "agent_id", "attributes"))
        agent_id = said.text("agent_id", needed=True, chars_max=TEXT_CHARS_MAX)
        specialization = said.text("specialization", needed=True, chars_max=TEXT_CHARS_MAX)
        attributes = said.attributes("attributes")
        with about("specialization"):
            check_specialization(specialization, "register each by itself")
        with about("attributes"):
            specialist(agent_id, specialization, attributes)
        return answer_of(await parts.actor.register(bearer, agent_id, specialization, attributes))

    @router.get(
        MESH + "/registry",
        **route("Who is alive, and good at what.", "Agents", parameters=(*PLACE, *PAGING)),
    )
    async def find(request: Request) -> Response:
        bearer = parts.desk.bearer(request)
        names = ("specialization", "agent_id", *PART)
        asked = parse_query(request.scope["query_string"], names)
        specialization, agent_id = asked.text("specialization"), asked.text("agent_id")
        part = part_asked(asked)
        bearer.check("read")
        found = [
            one
            for one in Specialists(parts.queries).entries(specialization, agent_id)
            if bearer.may_see_agent(one.node_id, one.agent_id, one.specialization)
        ]
        shown, following = part.of(
            ((place,) if specialization else (one.agent_id, one.specialization, one.node_id), one)
            for place, one in enumerate(
                found
            )  # of one specialization they are ranked: all may move
        )
        coverage = coverage_for(bearer, to_plain(coverage_to_wire(parts.queries.coverage())))
        agents = [to_plain(agent_to_wire(one)) for one in shown]
        return json_response({"agents": agents, "coverage": coverage, "next": following})

    @router.delete(
        MESH + "/registry",
        **route("Take an agent out.", "Registered", *ORDERED, parameters=PLACE),
    )
    async def unregister(request: Request) -> Response:
        bearer = parts.desk.bearer(request)
        asked = parse_query(request.scope["query_string"], ("specialization", "agent_id"))
        agent_id = asked.text("agent_id", needed=True, chars_max=TEXT_CHARS_MAX)
        specialization = asked.text("specialization", needed=True, chars_max=TEXT_CHARS_MAX)
        return answer_of(await parts.actor.unregister(bearer, agent_id, specialization))


def _add_keys(router: APIRouter, parts: Parts) -> None:
    @router.post(
        MESH + "/keys",
        **route("Make a narrower key.", "Key", 404, 409, 408, 415, status=201, body="NewKey"),
    )
    async def make_key(request: Request) -> Response:
        bearer, said = await parts.desk.posted(request)
        said.check_known(("session_key", "ttl", "actions", "specializations", "agent_ids", "nodes"))
        with about("session_key"):
            label = checked_label(said.text("session_key"))
        ttl_s = said.integer("ttl", 1, GRANT_TTL_S_MAX, KEY_TTL_S)
        with about("actions"):
            actions = checked_actions(said.texts("actions") or ())
        with about("specializations"):
            specs = said.texts("specializations")
            for spec in specs or ():
                check_specialization(spec)
        scope = Scope(
            actions,
            _node_ids(parts, said.texts("nodes")),
            said.texts("agent_ids"),
            specs,
            parts.queries.mesh.self_id,
        )
        bearer.check_mints()
        now_s = parts.clock.wall_s()
        made = described(child_of(bearer.key, scope, ttl_s, now_s, parts.chance), now_s)
        answer = {"session_key": made["key"], **made, "label": label}
        return Response(msgspec.json.encode(answer), 201, media_type="application/json")


def _node_ids(parts: Parts, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(map(parts.queries.node_named, names))
