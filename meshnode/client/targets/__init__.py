"""Which node, session or agent somebody means, and what is wished for it."""
