"""What queries answer, on the wire: sessions, members, agents and coverage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import asdict

from meshnode.core.ledger.prices import usd_text
from meshnode.core.sessions.sessions import PHASE
from meshnode.rpc.cost import buckets_to_wire
from meshnode.v1 import agent_pb2, coverage_pb2, local_service_pb2, node_pb2, session_pb2
from meshnode.wire.times import time_to_wire

if TYPE_CHECKING:
    from meshnode.app.queries.views import AgentView, Coverage, NodeView, SessionView, Status


def session_to_wire(view: SessionView) -> session_pb2.Session:
    """Encode a session; fields that are not known stay absent."""
    record = view.record
    can_steer = "none" if record.ended else record.can_steer
    can_kill = "none" if record.ended else record.can_kill
    return session_pb2.Session(
        session_id=record.session_id,
        agent_id=record.agent_id,
        title=record.title,
        node_id=view.node_id,
        node_name=view.node_name,
        adapter=record.adapter,
        state=view.state,
        phase=PHASE[view.state],
        alive=view.alive,
        active=view.active,
        waiting_for=record.waiting_for,
        specializations=record.specializations,
        owner=record.owner,
        project=record.project,
        cwd=record.cwd,
        pid=None if record.ended else record.pid,  # by now it may be somebody else's
        created_at=time_to_wire(record.created_at_s),
        last_activity=time_to_wire(record.last_activity_s),
        observed_at=time_to_wire(view.observed_at_s),
        ended_at=_optional_time(record.ended_at_s),
        end_reason=record.end_reason,
        exit_code=record.exit_code,
        signal=record.signal,
        ended_by=record.ended_by,
        message_count=record.message_count,
        tool_calls=record.tool_calls,
        model=view.model or record.model,
        usage=buckets_to_wire(view.usage),
        cost_usd=None if view.cost_nusd is None else usd_text(view.cost_nusd),
        labels=record.labels,
        can=session_pb2.Can(steer=can_steer, kill=can_kill),
        session_epoch=record.session_epoch,
        session_start=record.start or 0,
        orders=record.orders,
    )


def node_to_wire(view: NodeView) -> node_pb2.Node:
    """Encode a member."""
    return node_pb2.Node(
        node_id=view.node_id,
        name=view.name,
        state=view.state,
        addresses=view.addresses,
        epoch=view.epoch,
        version=view.version,
        labels=view.labels,
        sessions=view.sessions,
        since=_optional_time(view.since_s),
        last_heard=_optional_time(view.last_heard_s),
        links=view.links,
        self=view.is_self,
        journal_generation=view.journal_generation,
    )


def agent_to_wire(view: AgentView) -> agent_pb2.Agent:
    """Encode a live agent of the registry."""
    return agent_pb2.Agent(
        agent_id=view.agent_id,
        session_id=view.session_id,
        node_id=view.node_id,
        node_name=view.node_name,
        specialization=view.specialization,
        attributes=view.attributes,
        alive=True,
        load=view.load,
    )


def status_to_wire(status: Status, coverage: Coverage) -> local_service_pb2.GetStatusResponse:
    """Encode what a node says about itself."""
    return local_service_pb2.GetStatusResponse(
        node_id=status.node_id,
        name=status.name,
        mesh_id=status.mesh_id,
        mesh_name=status.mesh_name,
        version=status.version,
        pid=status.pid,
        started_at=time_to_wire(status.started_at_s),
        listen=[status.listen],
        enrolment=status.enrolment,
        nodes_alive=status.nodes_alive,
        links=status.links,
        coverage=coverage_to_wire(coverage),
        sessions=status.sessions,
        mdns=status.mdns,
        rss_bytes=status.rss_bytes,
        troubles=[
            local_service_pb2.PeerTrouble(
                peer=trouble.peer, reason=trouble.reason, at=time_to_wire(trouble.at_s)
            )
            for trouble in status.troubles
        ],
        role=status.role,
        sources=[local_service_pb2.SourceStatus(**asdict(source)) for source in status.sources],
        heard_by_mdns=status.heard_by_mdns,
        seeds=status.seeds,
        loop_lag_s=status.loop_lag_s,
        feeds_held=status.feeds_held,
        feeds_wanted=status.feeds_wanted,
        other_meshes=status.other_meshes,
        build=status.build,
        schema=status.schema,
        alarms=[
            local_service_pb2.Alarm(
                id=alarm.id,
                since=time_to_wire(alarm.since_s),
                detail=alarm.detail,
                fix=alarm.fix,
                stops_writes=alarm.stops_writes,
            )
            for alarm in status.alarms
        ],
    )


def coverage_to_wire(coverage: Coverage) -> coverage_pb2.Coverage:
    """Encode how much of the mesh an answer speaks for."""
    return coverage_pb2.Coverage(
        nodes_known=coverage.nodes_known,
        nodes_heard=coverage.nodes_heard,
        oldest_s=coverage.oldest_s,
        missing=[
            coverage_pb2.MissingNode(
                node_name=missing.node_name,
                state=missing.state,
                observed_at=_optional_time(missing.observed_at_s),
            )
            for missing in coverage.missing
        ],
        missing_more=coverage.missing_more,
    )


def _optional_time(at_s: float | None) -> str | None:
    return None if not at_s else time_to_wire(at_s)
