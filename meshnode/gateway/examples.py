"""Examples of what is sent and answered, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Any

_NODE = "2a7kq4xj" + "a" * 44
_SESSION = "7h4kq2v6xmf3zq5rzt3ylpabcd"
_AT = "2026-11-20T09:30:00.000Z"
_COVERAGE: dict[str, Any] = {
    "nodes_known": 2,
    "nodes_heard": 2,
    "oldest_s": None,
    "missing": [],
    "missing_more": 0,
}
_OUTCOME = {
    "command_id": "4h2kq2v6xmf3zq5rzt3ylpabcd",
    "session_id": _SESSION,
    "node_id": _NODE,
    "outcome": "delivered",
    "at": _AT,
    "detail": "one line written to the agent's stdin; nobody follows its inbox",
    "receipt": "k6dyZWNlaXB0...",
    "receipt_verified": True,
}
OF: dict[str, dict[str, Any]] = {
    "Steer": {"agent_id": "123", "direction": "north"},
    "Register": {"specialization": "image-processing", "agent_id": "123"},
    "NewKey": {"session_key": "abc123", "ttl": 3600},
    "Key": {
        "session_key": "smk1_...",
        "key": "smk1_...",
        "key_id": "0123456789abcdef",
        "label": "abc123",
        "ttl": 3600,
        "expires_at": _AT,
        "actions": ["kill", "read", "register", "steer"],
    },
    "Outcome": _OUTCOME,
    "Killed": _OUTCOME
    | {
        "outcome": "applied",
        "detail": "2 processes are gone",
        "processes": {"found": 2, "gone": 2, "survivors": []},
    },
    "Registered": {"agent_id": "123", "specialization": "image-processing"}
    | _OUTCOME
    | {"session_id": None, "outcome": "applied", "detail": "123 is registered"},
    "Agents": {
        "agents": [
            {
                "agent_id": "123",
                "session_id": _SESSION,
                "node_id": _NODE,
                "node_name": "berta",
                "specialization": "image-processing",
                "attributes": {},
                "alive": True,
                "load": None,
            }
        ],
        "coverage": _COVERAGE,
        "next": None,
    },
    "Health": {
        "status": "ok",
        "sessions": {"active": 3, "max": 1000},
        "coverage": {"nodes_known": 2, "nodes_heard": 2},
    },
}
