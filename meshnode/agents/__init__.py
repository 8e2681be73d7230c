"""Processes under supervision."""
