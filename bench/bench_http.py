"""The HTTP front door: beside a bare FastAPI route with the same bytes, and what it weighs.

`bench_http.py [--sessions N]`: lists a page of 200 of N sessions (10,000 unless told), steers
through a node that does not own the agent, and compares the memory of a node with and without it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import time
from statistics import median, quantiles
from typing import TYPE_CHECKING

import psutil
from report import Figure, Fleet, Node, table, wait_until

# isort: split
# Only now: `report` puts the tests' modules where Python looks.
from e2e.web import API, key_of

if TYPE_CHECKING:
    from collections.abc import Callable

SESSIONS = 10_000
PAGE = 200
KEYS = 8  # one may ask 500 times a second
LISTS = 1500
WARM_UP = 100
STEERS = 200
AGENT = "bench"
FLAGS = ("--no-mdns", "--http", "127.0.0.1:0")
ADDED_LIMIT_MIB = 45.0
STEER_LIMIT_MS = 12.0
LISTS_A_SECOND = 300.0
BARE = """
import sys, uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response
content = sys.stdin.buffer.read()
app = FastAPI()
@app.get("/alive")
async def alive(request: Request) -> Response:
    return Response(content, media_type="application/json")
uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False, http="h11")
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    chosen = parser.parse_args()
    fleet = Fleet()
    try:
        asked, owner = fleet.mesh("asked", "owner", flags=FLAGS)
        table("What the front door weighs", weighed(asked, owner))
        owner.call("run", "--detach", "--agent-id", AGENT, "--", "sh", "-c", "cat >/dev/null")
        table("A steer over HTTP, of another node's agent", steered(asked))
        owner.end()
        table(f"A page of {PAGE} of {chosen.sessions:,} sessions", listed(asked, chosen.sessions))
    finally:
        fleet.close()
