"""Sessions of this node, from what is asked for at the start to the row that tells of the end.

- their life: `opening`, `sessions`, `holding`, `endings`, `done`, `untold`
- what they take and tell: `inboxes`, `directions`, `activity`, `readings`, `reporting`
- what agents may from inside: `tickets`, `own_entries`, `registry`
"""
