"""Serving until told to stop: a home's lock, its log, its database, and the node between them."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from meshnode.client.dumping import forbid_dumps
from meshnode.client.home import Home, check_all_private, check_private, make_private
from meshnode.client.keys.keyfiles import tighten
from meshnode.core.errors import MeshError, NotAuthenticatedError
from meshnode.core.ids import node_id_of
from meshnode.node.background import log_unhandled
from meshnode.node.configuration import again
from meshnode.node.configuration.told import RETURNED_FACT, config_of, merged
from meshnode.node.homes.entering import finish_begun
from meshnode.node.homes.founding import NAME_FACT, device_key, found, read_genesis, recover
from meshnode.node.homes.membership import check_identity, put_back
from meshnode.node.homes.restoring import leaving_in
from meshnode.node.init import TO_STOP
from meshnode.node.loading import no_collection
from meshnode.node.lock import HomeLock
from meshnode.node.names import checked_name
from meshnode.store import facts, feeds
from meshnode.store.database import Database
from meshnode.telemetry.logs import start_logging

if TYPE_CHECKING:
    from collections.abc import Callable

    from meshnode.node.configuration.options import UpOptions
    from meshnode.node.node import Node

PRIVATE_MASK = 0o077  # a node starts no agents: what it writes is its user's alone
OPEN_FILES = 65_536  # at once; often 1,024 by default, which a crowd at the ports would use up
_log = logging.getLogger("session_mesh.node")


def serve(
    home: Home, options: UpOptions, tell: Callable[[dict[str, Any]], None], *, on_terminal: bool
) -> int:
    """Run a node; `tell` gets the ready event once."""
    os.umask(PRIVATE_MASK)
    forbid_dumps()
    if options.name is not None:
        checked_name(options.name)
    config = config_of(home, options)
    node_options = merged(home, config, options)
    node = _node()
    check_all_private((home.path, home.run, home.sessions), check_private)
    make_private(home.path)
    with HomeLock(home, hint=partial(again.hint, home, options)):
        finish_begun(home)
        again.keep(home, options)
        founded = not home.initialised  # asked with the lock: somebody else may just have made it
        if founded:
            found(home, None, options.name or config.node, None)
        make_private(home.sessions)
        _keep_private(home)
        check_identity(home, node_id_of(device_key(home).public))
        _raise_open_files()
        start_logging(home.log, on_terminal=on_terminal)
        for warning in config.warnings:
            _log.warning("%s", warning)
        database = Database(home.database)
        try:
            _check_membership(home, database)
            put_back(home, database, node_id_of(device_key(home).public))
            recover(home, database)
            if options.name:
                database.run_now(facts.remember, {NAME_FACT: options.name.encode()})
            asyncio.run(_serve(partial(node, home, node_options, database), tell, founded=founded))
        finally:
            database.close()
    return 0


def _keep_private(home: Home) -> None:
    """Close to others what was left open to them; raises NotPermittedError for what is not ours."""
    database, log = str(home.database), str(home.log)
    for path in (database, f"{database}-wal", f"{database}-shm", log, f"{log}.1"):
        tighten(Path(path))


def _raise_open_files() -> None:
    """Let a crowd of strangers' connections not use up what our disk and our agents need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _check_membership(home: Home, database: Database) -> None:
    left = leaving_in(database.run_now(feeds.load_own, node_id_of(device_key(home).public)))
    if left and left != database.run_now(facts.recall, RETURNED_FACT):
        there, beside = quote(str(home.path)), quote(f"{home.path}-new")
        raise NotAuthenticatedError(
            f"this home has left the mesh {read_genesis(home).name}",
            f"enter one with a new invite: session-mesh --home {there} join - --up;"
            f" or make one in a home beside it: session-mesh --home {beside} up --detach",
        )


def _node() -> type[Node]:
    """Load the node itself, most of what a start takes: not before what was asked for is right."""
    with no_collection():
        from meshnode.node.node import Node  # noqa: PLC0415 - as said above

    return Node


async def _serve(
    node_with: Callable[[asyncio.TaskGroup], Node],
    tell: Callable[[dict[str, Any]], None],
    *,
    founded: bool,
) -> None:
    asyncio.get_running_loop().set_exception_handler(log_unhandled())
    failed: list[BaseException] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            node = node_with(tasks)
            too_early = asyncio.Event()
            _on_signals(too_early.set)
            event = await node.start()
            _on_signals(node.ask_to_stop)  # first: whoever is told may stop us at once
            if too_early.is_set():
                node.ask_to_stop()  # in order, as one that has served
            tell(event | {"founded": founded})
            await node.run()
    except* MeshError as group:
        failed = [group]
    while failed and isinstance(failed[0], BaseExceptionGroup):
        failed = [*failed[0].exceptions]
    if failed:  # raised within `except*`, it would be in a group again before Python 3.11.4
        raise failed[0]


def _on_signals(stop: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in TO_STOP:
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # started by nohup: it outlives its terminal
        loop.add_signal_handler(number, stop)
