"""The OpenAPI document: what of it is not in the routes themselves.

Invariant: the shapes of answers are read off the messages that the answers are made of, so a field
that is added to one is documented.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import FieldDescriptor

from meshnode.client.public import INTERNAL_FIELDS
from meshnode.core.commands.steers import MODES
from meshnode.gateway import examples
from meshnode.gateway.problems import MEDIA_TYPE, TITLES
from meshnode.v1 import agent_pb2, local_service_pb2, node_pb2, session_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

    Schema = dict[str, Any]

INTEGERS = frozenset(
    {
        FieldDescriptor.TYPE_INT32,
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT32,
        FieldDescriptor.TYPE_UINT64,
    }
)
EVERY = (400, 401, 403, 413, 421, 429, 431, 500, 503)  # whatever the route
TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": 512}
ID: Schema = {"type": "string", "pattern": "^[a-z2-7]{25}[aeimquy4]$"}  # 16 bytes
OUTCOMES = ("accepted", "delivered", "applied", "queued", "parked")


def route(
    summary: str,
    answer: str,
    *problems: int,
    status: int = 200,
    parameters: tuple[Schema, ...] = (),
    body: str = "",
    media: str = "application/json",
) -> dict[str, Any]:
    """Return what FastAPI is told of a route; `answer` and `body` name schemas, none for text."""
    extra: dict[str, Any] = {"parameters": list(parameters)} if parameters else {}
    if body:
        content = {"schema": _ref(body), "example": examples.OF[body]}
        extra["requestBody"] = {"required": True, "content": {"application/json": content}}
    said: dict[str, Any] = {"schema": _ref(answer) if answer else _STRING}
    if answer in examples.OF:
        said["example"] = examples.OF[answer]
    answers: dict[int | str, Any] = {status: {"description": summary, "content": {media: said}}}
    answers |= {number: problem(number) for number in sorted({*EVERY, *problems})}
    return {
        "summary": summary,
        "status_code": status,
        "responses": answers,
        "openapi_extra": extra,
    }


def problem(status: int) -> Schema:
    """Return what is said of an answer that is no success."""
    said: Schema = {
        "description": TITLES[status],
        "content": {MEDIA_TYPE: {"schema": _ref("Problem")}},
    }
    if status in {429, 503}:
        said["headers"] = {"Retry-After": {"schema": {"type": "integer", "minimum": 1}}}
    return said


def query(name: str, what: str, schema: Schema | None = None) -> Schema:
    """Return a parameter in the query."""
    return {
        "name": name,
        "in": "query",
        "description": what,
        "schema": TEXT if schema is None else schema,
    }


def in_path(name: str, what: str) -> Schema:
    """Return a parameter in the path."""
    return query(name, what, {**TEXT, "pattern": "^[^/]+$"}) | {"in": "path", "required": True}


def in_header(name: str, what: str, pattern: str) -> Schema:
    """Return a header that may be sent."""
    return query(name, what, {"type": "string", "pattern": f"^({pattern})$"}) | {"in": "header"}


def completed(document: Schema) -> Schema:
    """Add the shapes, and how one is authenticated, to what FastAPI has made of the routes."""
    document["components"] = {
        "schemas": schemas(),
        "securitySchemes": {
            "sessionKey": {
                "type": "http",
                "scheme": "bearer",
                "bearerFormat": "smk1",
                "description": "A session key: keys new, or POST /api/session-mesh/keys.",
            }
        },
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path == "/health" else [{"sessionKey": []}]
            operation["responses"].pop("422", None)  # FastAPI's own: here it is a 400
            if "parameters" in operation:
                operation["parameters"] = _once(operation["parameters"])
    return document


def _once(parameters: list[Schema]) -> list[Schema]:
    """Merge what FastAPI reads off a path with what its route says of it, which comes later."""
    merged: dict[tuple[str, str], Schema] = {}
    for one in parameters:
        merged[one["name"], one["in"]] = merged.get((one["name"], one["in"]), {}) | one
    return list(merged.values())


@cache
def schemas() -> Schema:
    """Return all shapes by name."""
    session = _message(session_pb2.Session.DESCRIPTOR)
    coverage = _message(local_service_pb2.ListSessionsResponse.DESCRIPTOR)["properties"]["coverage"]
    following = {"type": ["string", "null"], "description": "Give it as `next` for what follows."}
    return {
        "Session": session,
        "SessionDetail": {"allOf": [_ref("Session"), _object(dict.fromkeys(MONITOR, _INTEGER))]},
        "Sessions": _object(
            {"sessions": _list("Session"), "coverage": _ref("Coverage"), "next": following}
        ),
        "Coverage": coverage,
        "Node": _message(node_pb2.Node.DESCRIPTOR),
        "Nodes": _object({"nodes": _list("Node"), "coverage": _ref("Coverage"), "next": following}),
        "Agent": _message(agent_pb2.Agent.DESCRIPTOR),
        "Agents": _object(
            {"agents": _list("Agent"), "coverage": _ref("Coverage"), "next": following}
        ),
        "Cost": _object(
            _message(local_service_pb2.GetCostResponse.DESCRIPTOR)["properties"]
            | {"next": following}
        ),
        "Outcome": _object(_OUTCOME),
        "Registered": _object({"agent_id": _STRING, "specialization": _STRING} | _OUTCOME),
        "Killed": _object(_OUTCOME | {"processes": _object(_PROCESSES)}),
        "Key": _object(_KEY),
        "Health": _object(
            {
                "status": {"type": "string", "enum": ["ok", "degraded"]},
                "sessions": _object({"active": _INTEGER, "max": _INTEGER}),
                "coverage": _object({"nodes_known": _INTEGER, "nodes_heard": _INTEGER}),
            }
        ),
        "Problem": _object(_PROBLEM) | {"additionalProperties": True},
        "Document": {"type": "object", "additionalProperties": True},
        "Register": _asked({"specialization": _WORD, "agent_id": _WORD}, attributes=_ATTRIBUTES),
        "Steer": _asked({}, **_STEER) | {"oneOf": _EITHER},
        "NewKey": _asked({}, **_NEW_KEY),
    }


_STRING: Schema = {"type": "string"}
_MAYBE: Schema = {"type": ["string", "null"]}
_INTEGER: Schema = {"type": "integer"}
_WORD: Schema = {"type": "string", "minLength": 1, "maxLength": 128}
_TEXTS: Schema = {"type": "array", "items": TEXT, "minItems": 1, "maxItems": 64}
_ATTRIBUTES: Schema = {
    "type": "object",
    "maxProperties": 32,
    "additionalProperties": {"type": ["string", "number", "boolean"], "maxLength": 128},
    "propertyNames": {"maxLength": 128},
}
_OUTCOME: Schema = {
    "command_id": _MAYBE,
    "session_id": _MAYBE,
    "node_id": _STRING,
    "outcome": {"type": "string", "enum": list(OUTCOMES)},
    "at": _STRING,
    "detail": _STRING,
    "receipt": _MAYBE,
    "receipt_verified": {"type": "boolean"},
}
_PROCESSES: Schema = {
    "found": _INTEGER,
    "gone": _INTEGER,
    "survivors": {"type": "array", "items": _INTEGER},
}
_KEY: Schema = {
    "session_key": _STRING,
    "key": _STRING,
    "key_id": _STRING,
    "label": _MAYBE,
    "ttl": _INTEGER,
    "expires_at": _STRING,
    "actions": {"type": "array", "items": _STRING},
}
_PROBLEM: Schema = {
    "type": _STRING,
    "title": _STRING,
    "status": _INTEGER,
    "code": _STRING,
    "detail": _STRING,
    "hint": _MAYBE,
}
_STEER: Schema = {
    "agent_id": TEXT,
    "session_id": TEXT,
    "direction": TEXT,
    "message": {"type": "string", "minLength": 1, "maxLength": 32768},
    "mode": {"type": "string", "enum": list(MODES)},
    "node": TEXT,
    "command_id": ID,
}
_EITHER = [{"required": ["agent_id"]}, {"required": ["session_id"]}]
_NEW_KEY: Schema = {
    "session_key": {
        "type": "string",
        "minLength": 1,
        "maxLength": 128,
        "description": "A label; no secret.",
    },
    "ttl": {"type": "integer", "minimum": 1, "maximum": 2592000, "default": 3600},
    "actions": _TEXTS,
    "specializations": _TEXTS,
    "agent_ids": _TEXTS,
    "nodes": _TEXTS,
}
MONITOR = (
    "messages_count",
    "total_input_tokens",
    "total_output_tokens",
    "total_reasoning_tokens",
    "total_cached_tokens",
)


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(name: str) -> Schema:
    return {"type": "array", "items": _ref(name)}


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _asked(needed: Schema, **further: Schema) -> Schema:
    perhaps = {name: {"anyOf": [one, {"type": "null"}]} for name, one in further.items()}
    return _object(needed) | {"properties": needed | perhaps, "additionalProperties": False}


def _message(descriptor: Descriptor) -> Schema:
    return _object(
        {
            field.name: _field(field)
            for field in descriptor.fields
            if field.name not in INTERNAL_FIELDS
        }
    )


def _field(field: FieldDescriptor) -> Schema:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return {
            "type": "object",
            "additionalProperties": _single(kind.fields_by_name["value"]),
        }
    single = _single(field)
    if field.is_repeated:
        return {"type": "array", "items": single}
    if field.containing_oneof is not None:
        return {"anyOf": [single, {"type": "null"}]}
    return single


def _single(field: FieldDescriptor) -> Schema:
    if field.message_type is not None:
        return _message(field.message_type)
    if field.type in INTEGERS:
        return _INTEGER
    if field.type == FieldDescriptor.TYPE_BOOL:
        return {"type": "boolean"}
    if field.type in {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}:
        return {"type": "number"}
    return _STRING
