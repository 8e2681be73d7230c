"""Nodes that the command line starts and stops.

`starting` in the background, `becoming` one in the foreground, `stopping`, and the invites of
`joins`.
"""
