"""The public Python client: every front end speaks to a node through it."""
