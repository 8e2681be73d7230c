"""Lines of a gateway's access log, as small as they count."""

import json

AT = "2026-11-20T10:00:00Z"


def line(ident: str, session: str = "s", at: str = AT, tokens: int = 5) -> str:
    """Return the line of one call, of ten tokens unless told."""
    call = {"session_id": session, "model": "m", "input_token": tokens, "output_token": 5}
    return json.dumps({"ai_log": json.dumps(call), "request_id": ident, "start_time": at}) + "\n"
