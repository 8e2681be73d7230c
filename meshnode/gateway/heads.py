"""The head of a request, where HTTP has several ways to say a thing: the routes see one of them.

Invariant: a HEAD is a GET whose body is not sent, an address is a path, and the host is that of the
address if it has one (RFC 9112, 3.2). What two servers could read in two ways ends its connection.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from meshnode.gateway.listening import HEAD_BYTES_MAX
from meshnode.gateway.problems import Problem

if TYPE_CHECKING:
    from starlette.types import Scope

_ABSOLUTE = re.compile(rb"https?://([^/?#@]+)(/.*)?", re.DOTALL | re.IGNORECASE)


def as_routed(scope: Scope) -> Scope:
    """Return a request as the routes know it."""
    if scope["method"] != "HEAD" and scope["raw_path"].startswith(b"/"):
        return scope
    routed = dict(scope)
    if scope["method"] == "HEAD":
        routed["method"] = "GET"
    if absolute := _ABSOLUTE.fullmatch(scope["raw_path"]):
        routed["raw_path"] = absolute[2] or b"/"
        routed["path"] = unquote(routed["raw_path"].decode("ascii"))
    return routed


def host_of(scope: Scope) -> str:
    """Return the host that is asked, with its port if it has one; raises Problem 400."""
    given = [value for name, value in scope["headers"] if name == b"host"]
    if len(given) != 1:
        raise Problem(400, "usage", "a request names one host")
    if scope["raw_path"].startswith(b"/"):
        return str(given[0].decode("latin-1"))
    absolute = _ABSOLUTE.fullmatch(scope["raw_path"])
    if not absolute:
        raise Problem(400, "usage", "the address should be a path, or http://HOST/PATH")
    return str(absolute[1].decode("latin-1"))


def check_length(scope: Scope) -> None:
    """Raise Problem 431 for a head that is too long; h11 bounds those alone that come in pieces."""
    lines = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    if lines + len(scope["raw_path"]) + len(scope["query_string"]) > HEAD_BYTES_MAX:
        raise Problem(431, "usage", f"a head has at most {HEAD_BYTES_MAX} bytes")


def has_two_lengths(scope: Scope) -> bool:
    """Whether both headers say how long the body is: a sign of smuggling (RFC 9112, 6.3)."""
    names = {name for name, _ in scope["headers"]}
    return {b"content-length", b"transfer-encoding"} <= names
