"""How others find a node, and it them: addresses, listeners, mDNS and seeds, its own row, its socket."""
