"""What may stand in a configuration, as a JSON Schema (2020-12), for editors and other programs.

Invariant: it names every key that `config` reads and no other, and takes whatever that takes, as
far as a schema can tell: addresses, names and files are read closer when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshnode.core.commands.steers import MODES
from meshnode.core.control.settings import CONSEQUENCES, PERIODS
from meshnode.core.membership.members import LABELS_MAX
from meshnode.ingest.sources import SOURCES
from meshnode.node.configuration import http_options
from meshnode.node.configuration.config import BUDGETS_MAX, LATER_SOURCES, ON_EXIT

if TYPE_CHECKING:
    from collections.abc import Iterable

Schema = dict[str, Any]

SCHEMA_URI = "https://json-schema.org/draft/2020-12/schema"
SCALAR = ["string", "number", "boolean"]  # taken as it is written: 0123 is no 83
DURATION = r"^[0-9]{1,9}\s*[smhd]?$"


def schema() -> Schema:
    """Return the schema of `config.yaml`."""
    return {
        "$schema": SCHEMA_URI,
        "title": "The configuration of a session-mesh node",
        **_map(
            node=_text("What the node is called; else what its machine is."),
            listen=_address("Where members find it; the next port is for joiners."),
            advertise=_address("What others are told instead."),
            seeds=_list(_address("Where some member may be."), "Nodes to try, beside mDNS."),
            labels=_texts("What the node is labelled with.") | {"maxProperties": LABELS_MAX},
            on_exit=_choice(ON_EXIT, "What becomes of agents when a signal stops the node."),
            mdns=_flag("Whether nodes on the same network are looked for."),
            ingest=_list(_source(), "Logs of what agents use."),
            prices=_text("A price file, from where the configuration lies."),
            budgets=_list(_budget(), "Limits of this node alone.") | {"maxItems": BUDGETS_MAX},
            http=_http(),
            metrics=_address("Where metrics are served without a key: a loopback address, or off."),
            directions=_directions(),
            sessions={
                "description": "What `list` shows unless it is told otherwise.",
                "type": ["array", "object", "null"],
                "items": _map(
                    id=_text("A session, or an agent."),
                    filter=_text("As in `list --filter`."),
                    node=_text("A node."),
                    spec=_text("A specialization."),
                    owner=_text("For whom it works."),
                    agent_id=_text("An agent."),
                ),
            },
            spec=_text("The specialization that `list` shows."),
            agents={"description": "Of a later version."},
            notify={"description": "Of a later version."},
        ),
    }


def _source() -> Schema:
    said = _map(
        source=_choice((*SOURCES, *LATER_SOURCES), "What writes it."),
        path=_text("The file or directory; else where it usually is."),
        session_key=_text("Count this session only."),
        refresh_interval=_text("Between two looks where the system does not tell.")
        | {"pattern": DURATION},
        messages=_flag("Keep what was said, on this machine alone."),
    )
    return said | {"required": ["source"]}


def _budget() -> Schema:
    said = _map(
        name=_text("What it is called."),
        limit=_text("20usd, 0.5usd, 5Mtok, 200ktok."),
        per=_choice(PERIODS, "In UTC."),
        then=_choice(CONSEQUENCES, "What follows at the limit; suspend unless told."),
        warn=_text("A share of the limit; 80% unless told."),
        owner=_text("What is spent for it."),
        agent_id=_text("By this agent."),
        spec=_text("By sessions run with it."),
        project=_text("For this project."),
    )
    return said | {"required": ["name", "limit", "per"]}


def _http() -> Schema:
    told = _map(
        listen=_address(f"Where; {http_options.DEFAULT_HTTP} unless told."),
        tls=_flag("Serve TLS with the node's own certificate."),
        tls_cert=_text("A chain in PEM, from where the configuration lies."),
        tls_key=_text("Its key."),
        hosts=_list(_text("A name."), "What the node is called beside its address."),
        origins=_list(_text("An origin."), "Of web pages that may ask."),
    )
    return {
        "description": "Whether and where HTTP is served: on, off, an address, or a map.",
        "anyOf": [{"type": [*SCALAR, "null"]}, told],
    }


def _directions() -> Schema:
    meaning = _map(
        template=_text("What the agent is told; {direction}, {agent_id}, {neighbour}."),
        handoff=_text("Its neighbour there: an agent, or node/agent."),
        mode=_choice(MODES, "How it meets what the agent is doing."),
    )
    return {
        "description": "What directions mean: a template, or a map.",
        "type": ["object", "null"],
        "additionalProperties": {"anyOf": [{"type": SCALAR}, meaning]},
    }


def _map(**properties: Schema) -> Schema:
    return {
        "type": ["object", "null"],
        "properties": dict(properties),
        "additionalProperties": False,
    }


def _text(description: str) -> Schema:
    return {"description": description, "type": [*SCALAR, "null"]}


def _address(description: str) -> Schema:
    return {"description": description, "type": [*SCALAR, "null"], "examples": ["0.0.0.0:7707"]}


def _flag(description: str) -> Schema:
    return {"description": description, "enum": [True, False, "yes", "no", "on", "off", None]}


def _choice(words: Iterable[str], description: str) -> Schema:
    return {"description": description, "enum": [*sorted(words), None]}


def _list(items: Schema, description: str) -> Schema:
    return {"description": description, "type": ["array", "null"], "items": items}


def _texts(description: str) -> Schema:
    values = {"type": SCALAR}
    return {
        "description": description,
        "type": ["object", "null"],
        "additionalProperties": values,
    }
