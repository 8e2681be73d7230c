"""Which fields of what a node answers are the contract's JSON, for every front end alike."""

from __future__ import annotations

from typing import Any

INTERNAL_FIELDS = frozenset({"session_epoch", "session_start", "journal_generation"})


def public(value: dict[str, Any]) -> dict[str, Any]:
    """Leave out the fields that are no part of the contract's JSON, of records in lists too."""
    return {
        key: [_public_item(one) for one in item] if isinstance(item, list) else item
        for key, item in value.items()
        if key not in INTERNAL_FIELDS
    }


def with_names_of_the_monitor(session: dict[str, Any]) -> dict[str, Any]:
    """Return a session with the same counts under the names that the Higress monitor gave them."""
    usage = session["usage"]
    written = usage["cache_write_5m"] + usage["cache_write_1h"]
    return session | {
        "messages_count": session["message_count"],
        "total_input_tokens": usage["input"] + usage["cache_read"] + written,
        "total_output_tokens": usage["output"],
        "total_reasoning_tokens": usage["reasoning"],
        "total_cached_tokens": usage["cache_read"],
    }


def _public_item(item: object) -> object:
    if not isinstance(item, dict):
        return item
    return {key: one for key, one in item.items() if key not in INTERNAL_FIELDS}
