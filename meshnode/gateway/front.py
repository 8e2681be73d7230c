"""The application: the routes, their document, and the doorkeeper before them."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route

from meshnode.core.errors import MeshError
from meshnode.gateway.doorkeeper import OPEN, Doorkeeper
from meshnode.gateway.openapi import completed, route
from meshnode.gateway.problems import Problem, problem_of
from meshnode.gateway.routes import Parts, routes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    from starlette.routing import BaseRoute


def front(
    parts: Parts,
    version: str,
    hosts: Collection[str],
    origins: Collection[str],
    limited: Callable[[], None],
) -> Doorkeeper:
    """Put the front door together; `limited` is told of each caller who is to wait."""
    app = FastAPI(
        title="session-mesh",
        version=version,
        description="See, steer, stop and cost every agent session in a fleet, from any node.",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={
            Problem: _on_problem,
            MeshError: _on_mesh_error,
        },
    )
    router = routes(parts)
    app.include_router(router)
    _add_document(app, parts)
    _add_refusals(app, [*router.routes, *app.routes], parts)
    return Doorkeeper(app, hosts, origins, parts.clock.steady_s, limited)


def _add_document(app: FastAPI, parts: Parts) -> None:
    made: list[bytes] = []

    @app.get("/openapi.json", **route("This document.", "Document"))
    async def document(request: Request) -> Response:
        parts.desk.bearer(request)
        if not made:
            described = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            made.append(msgspec.json.encode(completed(described)))
        return Response(made[0], media_type="application/json")


async def _on_problem(_request: Request, problem: Any) -> Response:  # noqa: ANN401 - starlette's own
    return problem.response()  # type: ignore[no-any-return] # registered for Problem


async def _on_mesh_error(_request: Request, error: Any) -> Response:  # noqa: ANN401 - as above
    return problem_of(error).response()


def _add_refusals(app: FastAPI, routed: list[BaseRoute], parts: Parts) -> None:
    """Word what the router says: no such path, no such method; to strangers, that they are such."""

    async def refuse(request: Request, error: Any) -> Response:  # noqa: ANN401 - as above
        try:
            if not OPEN.fullmatch(request.scope["path"]):
                parts.desk.bearer(request)
        except Problem as problem:
            return problem.response()
        except MeshError as unknown:
            return problem_of(unknown).response()
        status = HTTPStatus(error.status_code)
        hint = "GET /openapi.json lists the routes"
        answer = Problem(status.value, status.name.lower(), status.phrase.lower(), hint).response()
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            answer.headers["allow"] = ", ".join(_methods_of(request, routed))
        return answer

    app.add_exception_handler(HTTPException, refuse)


def _methods_of(request: Request, routed: Iterable[BaseRoute]) -> list[str]:
    """Return what may be done with a path, over all routes that lead to it."""
    methods: set[str] = set()
    for one in routed:
        if isinstance(one, Route) and one.matches(request.scope)[0] is not Match.NONE:
            methods |= one.methods or set()
    return sorted(methods | {"HEAD"} if "GET" in methods else methods)
