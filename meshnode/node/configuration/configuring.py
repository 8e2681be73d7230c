"""`config`: whether a configuration is right, what a node takes from it, and what may stand there.

Invariant: what `shown` returns is itself a configuration, and says the same as the one it is of.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from meshnode.client.documents import parse_document, read_document
from meshnode.client.selections import chosen_in
from meshnode.core.ledger.budgets import amount_text
from meshnode.node.configuration.config import config_in
from meshnode.node.configuration.configured import Config
from meshnode.node.configuration.options import UpOptions
from meshnode.node.configuration.price_file import PriceFile
from meshnode.node.configuration.told import NodeOptions, config_of, merged

if TYPE_CHECKING:
    from pathlib import Path

    from meshnode.client.documents import Entry
    from meshnode.client.home import Home
    from meshnode.core.control.settings import Budget
    from meshnode.ingest.reading import SourceConfig
    from meshnode.node.configuration.http_options import HttpOptions


def checked(home: Home, file: Path | None, given: bytes | None = None) -> dict[str, Any]:
    """Return `file` and `warnings` of a configuration that a node would start with.

    `file` is the home's own if None; `given` is what stands in it, if that was read already. Raises
    NotFoundError, or UsageError naming file, line and key.
    """
    path = file or home.config
    root = read_document(path) if given is None else parse_document(given, path.name)
    config = config_in(root)
    chosen_in(root.map("the configuration"))
    told = merged(home, config, UpOptions(config=path))
    told.http.check_files()
    faults: list[str] = []
    if told.prices is not None:
        PriceFile(told.prices, faults.append).read()
        if not told.prices.exists():
            faults.append(f"{told.prices} is missing: prices are those of this version")
    return {"file": str(path), "warnings": [*config.warnings, *faults]}


def shown(home: Home, file: Path | None) -> dict[str, Any]:
    """Return `file`, `config` with all defaults, and which keys are `given`; raises as `checked`.

    Without a file of its own a home has the defaults alone, and `file` is None.
    """
    path = file or home.config
    root = read_document(path) if file or home.config.exists() else None
    config = Config() if root is None else config_in(root)
    told = merged(home, config, UpOptions(config=path))
    return {
        "file": None if root is None else str(path),
        "config": _as_document(told),
        "given": [] if root is None else _given(root),
        "warnings": list(config.warnings),
    }


def not_kept(home: Home, options: UpOptions) -> list[str]:
    """Return, as lines of a configuration, what flags of `up` say and the configuration does not.

    Its next start knows of a name alone.
    """
    config = config_of(home, options)
    told = _as_document(merged(home, config, options))
    kept = _as_document(merged(home, config, UpOptions(config=options.config)))
    changed = [key for key in told if key != "node" and told[key] != kept[key]]
    return [f"{key}: {json.dumps(told[key])}" for key in changed]


def _given(root: Entry) -> list[str]:
    return [key for key, one in root.map("the configuration").items() if one.value is not None]


def _as_document(told: NodeOptions) -> dict[str, Any]:
    return {
        "node": told.name,
        "listen": told.listen,
        "advertise": told.advertise,
        "seeds": list(told.seeds),
        "labels": dict(told.labels),
        "on_exit": told.on_exit,
        "mdns": told.mdns,
        "ingest": [_source(one) for one in told.ingest],
        "prices": None if told.prices is None else str(told.prices),
        "budgets": [_budget(one) for one in told.budgets],
        "http": _http(told.http),
        "metrics": told.http.metrics or "off",
        "directions": {word: _said(asdict(one)) for word, one in told.directions.items()},
    }


def _source(one: SourceConfig) -> dict[str, Any]:
    said = _said(asdict(one))
    return said | {"refresh_interval": f"{said.pop('refresh_interval_s'):.0f}s"}


def _budget(one: Budget) -> dict[str, Any]:
    terms = one.terms
    if terms is None:
        return {"name": one.name}
    whom = {
        "owner": terms.owner,
        "agent_id": terms.agent,
        "spec": terms.specialization,
        "project": terms.project,
    }
    return {
        "name": one.name,
        "limit": amount_text(terms.limit, terms.unit),
        "per": terms.per,
        "then": terms.then,
        "warn": f"{terms.warn_percent}%",
        **_said(whom),
    }


def _http(http: HttpOptions) -> str | dict[str, Any]:
    if not http.listen:
        return "off"
    is_own = http.certificate == "own"
    return {
        "listen": http.listen,
        "tls": is_own,
        **_said({"tls_cert": "" if is_own else http.certificate, "tls_key": http.key}),
        "hosts": list(http.hosts),
        "origins": list(http.origins),
    }


def _said(fields: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing."""
    return {name: value for name, value in fields.items() if value is not None and value != ""}
