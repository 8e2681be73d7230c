"""Metrics without the rest of the front door: one page, for whoever reaches the address.

Invariant: FastAPI is not imported for it, which would take 14 MiB more than this needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from meshnode.gateway.doorkeeper import Doorkeeper
from meshnode.gateway.metrics import MEDIA_TYPE
from meshnode.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from meshnode.gateway.metrics import Metrics


def metrics_alone(metrics: Metrics, steady_s: Callable[[], float]) -> Doorkeeper:
    """Serve the metrics, and nothing else."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/metrics":
            raise Problem(404, "not_found", "not found", "GET /metrics")
        if scope["method"] != "GET":
            problem = Problem(405, "method_not_allowed", "method not allowed", "GET /metrics")
            refusal = problem.response()
            refusal.headers["allow"] = "GET, HEAD"
            await refusal(scope, receive, send)
            return
        await Response(await metrics.page(), media_type=MEDIA_TYPE)(scope, receive, send)

    return Doorkeeper(answer, (), (), steady_s)
