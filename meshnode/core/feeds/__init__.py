"""Feeds and their repair: what one node alone writes, and everybody holds.

- a feed: `rows`, `heads`, `headers`, `feed`, `forks`
- our own: `own_feed`, `room`, `clones`
- those of others: `messages`, `intake`, `holdings`, `fetching`, `recent`, `snapshots`, `reconcile`
"""
