"""The YAML configuration of a node.

Invariant: what is misspelt or of the wrong kind is refused with its line, never passed over; keys
of later versions are known by name and only warned about, so one file serves a mixed fleet.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from meshnode.app.sessions.directions import Direction
from meshnode.client.documents import Entry, read_document
from meshnode.client.durations import parse_duration
from meshnode.client.home import expanded
from meshnode.client.selections import is_of_list
from meshnode.core.commands.steers import MODES
from meshnode.core.control.settings import CONSEQUENCES, PERIODS, Budget
from meshnode.core.errors import UsageError
from meshnode.core.ledger.budgets import SAID, budget_of
from meshnode.core.membership.members import LABELS_SAID, labels_beyond
from meshnode.discovery.seeds import check_advertised, check_seed, parse_address
from meshnode.ingest.reading import SourceConfig
from meshnode.ingest.sources import SOURCES, no_messages, standard_paths
from meshnode.node.configuration.configured import Config
from meshnode.node.configuration.http_options import http_in
from meshnode.node.names import checked_name

if TYPE_CHECKING:
    from pathlib import Path

DIALLED = {"advertise": check_advertised, "seeds": check_seed}
NODE_KEYS = ("node", "listen", "advertise", "seeds", "labels", "on_exit", "mdns")
KEYS = (*NODE_KEYS, "ingest", "prices", "budgets", "http", "metrics", "directions")
LATER_KEYS = ("sessions", "agents", "notify")
BUDGETS_MAX = 64  # of one node's own
SOURCE_KEYS = ("source", "path", "session_key", "refresh_interval", "messages")
LATER_SOURCES = ("otlp",)
ON_EXIT = ("keep", "close")
DIRECTION_KEYS = ("template", "handoff", "mode")


def load_config(path: Path) -> Config:
    """Read a configuration file; raises NotFoundError, or UsageError naming file, line and key."""
    return config_in(read_document(path))


def config_in(root: Entry) -> Config:
    """Read a configuration from a document; raises UsageError naming file, line and key."""
    root.check_keys((*KEYS, *LATER_KEYS, "spec"))
    entries = root.map("the configuration")
    warnings = [
        f'{entries[key].place}: "{key}" is not supported by this version yet'
        for key in LATER_KEYS
        if key in entries and not is_of_list(key, entries[key])
    ]
    given = {key: entry for key, entry in entries.items() if entry.value is not None}
    return Config(
        node=_name(given.get("node")),
        listen=_address(given, "listen"),
        advertise=_address(given, "advertise"),
        seeds=_seeds(given.get("seeds")),
        labels=_labels(given.get("labels")),
        on_exit=given["on_exit"].choice("on_exit", ON_EXIT) if "on_exit" in given else "keep",
        mdns=given["mdns"].flag("mdns") if "mdns" in given else None,
        ingest=_sources(given.get("ingest"), warnings),
        prices=given["prices"].text("prices") if "prices" in given else None,
        budgets=_budgets(given.get("budgets")),
        directions=_directions(given.get("directions")),
        http=http_in(given.get("http"), given.get("metrics")),
        warnings=tuple(warnings),
    )


def _name(entry: Entry | None) -> str | None:
    if entry is None:
        return None
    name = entry.text("node")
    try:
        return checked_name(name)
    except UsageError as error:
        entry.fail(f'"node" is {error.message}', error.hint)


def _labels(entry: Entry | None) -> dict[str, str]:
    if entry is None:
        return {}
    labels = entry.labels("labels")
    if beyond := labels_beyond(labels):
        entry.map("labels")[beyond[0]].fail(f'no room for "labels.{beyond[0][:60]}"', LABELS_SAID)
    return labels


def _address(given: dict[str, Entry], name: str) -> str | None:
    return _checked_address(given[name], name) if name in given else None


def _checked_address(entry: Entry, name: str) -> str:
    text = entry.text(name)
    try:
        parse_address(text)
    except UsageError as error:
        entry.fail(f'"{name}" should be host:port, not "{text[:60]}"', error.hint)
    try:
        if name in DIALLED:
            DIALLED[name](text)
    except UsageError as error:
        entry.fail(f'"{name}": {error.message}', error.hint)
    return text


def _seeds(entry: Entry | None) -> tuple[str, ...]:
    if entry is None:
        return ()
    return tuple(_checked_address(item, "seeds") for item in entry.items("seeds"))


def _sources(entry: Entry | None, warnings: list[str]) -> tuple[SourceConfig, ...]:
    items = [] if entry is None else entry.items("ingest")
    return tuple(source for item in items for source in _source(item, warnings))


def _source(entry: Entry, warnings: list[str]) -> list[SourceConfig]:
    """Read one entry: without a path, transcripts are looked for where they usually are."""
    entry.check_keys(SOURCE_KEYS)
    fields = entry.map("ingest")
    if "source" not in fields:
        entry.fail('an entry of "ingest" needs "source"')
    source = fields["source"].choice("source", (*SOURCES, *LATER_SOURCES))
    if source in LATER_SOURCES:
        warnings.append(f'{entry.place}: source "{source}" is not supported by this version yet')
        return []
    if "path" in fields:
        paths = [fields["path"].text("path")]
        _check_home(fields["path"], paths[0])
    elif SOURCES[source].is_tree:
        paths = standard_paths(SOURCES[source], os.environ)
    else:
        entry.fail(f'an entry of "ingest" with source "{source}" needs "path"')
    session_key = fields["session_key"].text("session_key") if "session_key" in fields else None
    interval_s = _interval_s(fields.get("refresh_interval"))
    messages = fields["messages"].flag("messages") if "messages" in fields else False
    if messages and SOURCES[source].telling is None:
        said, hint = no_messages(source)
        fields["messages"].fail(said, hint)
    return [SourceConfig(source, path, session_key, interval_s, messages) for path in paths]


def _check_home(entry: Entry, path: str) -> None:
    try:
        expanded(path)
    except UsageError as error:
        entry.fail(error.message, error.hint)


def _budgets(entry: Entry | None) -> tuple[Budget, ...]:
    if entry is None:
        return ()
    items = entry.items("budgets")
    found = [_budget(item) for item in items]
    if len(found) > BUDGETS_MAX or len({one.name for one in found}) < len(found):
        entry.fail(f'"budgets" has more than {BUDGETS_MAX}, or one name twice')
    return tuple(found)


def _budget(entry: Entry) -> Budget:
    entry.check_keys(SAID)
    fields = {key: one for key, one in entry.map("budgets").items() if one.value is not None}
    missing = [name for name in ("name", "limit", "per") if name not in fields]
    if missing:
        entry.fail(f'an entry of "budgets" needs "{missing[0]}"')
    texts = {key: one.text(key) for key, one in fields.items()}
    for key, choices in (("per", PERIODS), ("then", CONSEQUENCES)):
        if key in fields:
            fields[key].choice(key, sorted(choices))
    try:
        return budget_of(texts)
    except UsageError as error:
        entry.fail(error.message, error.hint)


def _interval_s(entry: Entry | None) -> float:
    if entry is None:
        return 1.0
    text = entry.text("refresh_interval")
    try:
        seconds = parse_duration(text)
    except UsageError as error:
        entry.fail(f'"refresh_interval": {error.message}', error.hint)
    if seconds < 1:
        entry.fail('"refresh_interval" should be 1s or more')
    return float(seconds)


def _directions(entry: Entry | None) -> dict[str, Direction]:
    found = {} if entry is None else entry.map("directions")
    return {word: _direction(word, one) for word, one in found.items()}


def _direction(word: str, entry: Entry) -> Direction:
    """Read one direction: a text is its template."""
    if isinstance(entry.value, str):
        return Direction(template=entry.text(word))
    entry.check_keys(DIRECTION_KEYS)
    fields = entry.map(word)
    mode = fields["mode"].choice("mode", MODES) if "mode" in fields else ""
    template = fields["template"].text("template") if "template" in fields else ""
    handoff = fields["handoff"].text("handoff") if "handoff" in fields else ""
    if "{neighbour}" in template and not handoff:
        entry.fail('a template with {neighbour} needs "handoff"', "name an agent, or node/agent")
    if not template and not handoff:
        template = "direction: {direction}"
    return Direction(template, handoff, mode)
