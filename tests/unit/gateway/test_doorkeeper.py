"""What is kept of a request that failed: which route it was, and nothing that its caller wrote."""

import logging
from typing import Any

from fastapi import FastAPI

from meshnode.gateway.doorkeeper import Doorkeeper


async def test_the_log_of_a_failure_names_the_route_and_no_address(caplog):
    app = FastAPI()

    @app.get("/sessions/{session_id}")
    async def broken(session_id: str) -> None:
        del session_id
        raise RuntimeError("broken")

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    sent = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/sessions/private",
        "raw_path": b"/sessions/private",
        "root_path": "",
        "scheme": "http",
        "query_string": b"owner=private",
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8888),
    }
    with caplog.at_level(logging.ERROR):
        await Doorkeeper(app, (), (), lambda: 0.0)(scope, receive, send)
    assert sent[0]["status"] == 500
    assert "GET /sessions/{session_id}" in caplog.text
    assert "private" not in caplog.text
