"""`up`: run the node."""

import os
from pathlib import Path
from typing import Annotated

import typer

from session_mesh.arguments.completing import among
from session_mesh.arguments.options import Labels, pairs, several
from session_mesh.call import Call
from session_mesh.nodes.becoming import become_node
from session_mesh.nodes.joins import INVITE_VARIABLE, patience
from session_mesh.output.render import View
from session_mesh.verbs import verb


@verb(
    "session-mesh up",
    "session-mesh up --detach --name berta --seed 192.0.2.7:7707",
    "session-mesh up --detach --http on",
    "SESSION_MESH_INVITE=smj1_... session-mesh up",
)
def app(
    call: Call,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="H:P", help="Else every address, port 7707.")
    ] = None,
    advertise: Annotated[
        str | None, typer.Option("--advertise", metavar="H:P", help="Where others reach it.")
    ] = None,
    seed: Annotated[
        list[str] | None,
        typer.Option("--seed", metavar="H:P", help="A node to start from; several: a,b."),
    ] = None,
    mdns: Annotated[
        bool | None, typer.Option("--mdns/--no-mdns", help="Find nodes by multicast.")
    ] = None,
    label: Labels = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NODE", help="What this node is called."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="Else config.yaml in the home.")
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            "--http",
            metavar="on|off|H:P",
            help="Serve HTTP; on is 127.0.0.1:8888.",
            autocompletion=among(("on", "off")),
        ),
    ] = None,
    http_tls: Annotated[
        bool | None,
        typer.Option("--http-tls/--no-http-tls", help="HTTPS, with the node's own certificate."),
    ] = None,
    http_tls_cert: Annotated[
        Path | None, typer.Option("--http-tls-cert", help="HTTPS, with this chain (PEM).")
    ] = None,
    http_tls_key: Annotated[
        Path | None, typer.Option("--http-tls-key", help="The key of that certificate.")
    ] = None,
    http_host: Annotated[
        list[str] | None,
        typer.Option("--http-host", metavar="NAME", help="Other names clients ask for: a,b."),
    ] = None,
    http_origin: Annotated[
        list[str] | None,
        typer.Option("--http-origin", metavar="URL", help="Origins of pages that may ask: a,b."),
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", metavar="H:P", help="Prometheus metrics, on loopback, no key."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Serve in the background.")] = False,
) -> View | int:
    """Run this node until it is stopped.

    On a new home it makes a mesh of one first, or joins with SESSION_MESH_INVITE. The name is kept;
    what other flags say holds until it is down, and stays if it stands in config.yaml.
    """
    from meshnode.node.configuration.options import HttpFlags, UpOptions, told_of  # noqa: PLC0415 - as above
    from meshnode.node.main import ready_text, up_detached  # noqa: PLC0415 - large

    options = UpOptions(
        listen=listen,
        advertise=advertise,
        seeds=several(seed),
        mdns=mdns,
        labels=pairs(label),
        name=name,
        config=config,
        json_ready=call.style.format == "json",
        http=HttpFlags(
            http,
            http_tls,
            str(http_tls_cert.absolute()) if http_tls_cert else "",
            str(http_tls_key.absolute()) if http_tls_key else "",
            several(http_host),
            several(http_origin),
            metrics,
        ),
    )
    _follow_invite(call, name)
    if not detach:
        become_node(told_of(call.home, options))
    ready = up_detached(call.home, options)
    from session_mesh.nodes.starting import notes_on  # noqa: PLC0415 - large

    notes = notes_on(call.home, options)
    return View(value=ready, human=ready_text(ready), ids=[ready["node_id"]], notes=notes)


def _follow_invite(call: Call, name: str | None) -> None:
    """Take a new home into the mesh that the environment's invite is for."""
    invite = os.environ.get(INVITE_VARIABLE, "").strip()
    if call.home.initialised or not invite:
        return
    from meshnode.node.homes import joining  # noqa: PLC0415 - only a new home joins

    joined = joining.join(call.home, invite, node_name=name, pause=patience(call))
    for note in (*joined["warnings"], f"joined the mesh {joined['mesh_name']}"):
        call.streams.tell(note)
