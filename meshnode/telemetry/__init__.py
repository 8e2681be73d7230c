"""Logs of the node itself."""
