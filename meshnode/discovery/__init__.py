"""Where other nodes may be found: hints only, TLS decides who is who."""
