"""Node ids on the wire: text, checked at the border."""

from meshnode.core.ids import NodeId, node_key_of


def node_id_from_wire(text: str) -> NodeId:
    """Return a node id; raises PeerError if the text is none."""
    node_key_of(text)
    return NodeId(text)
