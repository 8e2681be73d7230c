"""How a node is asked: over which socket, as whom, and for how long when it does not answer."""
