"""The control set: signed entries that belong to no feed, and what follows from them.

`entries` and `control` are the set; `grants`, `roles`, `settings`, `succession`, `revocations` and
`rolebook` say who may what; `entitled`, `shares` and `hiding` bound what is kept of whom.
"""
