"""The public Python client: every front end speaks to a node through it.

`mesh.MeshClient` on a home with a running node, `inside.Inside` for an agent in its session.

- the two, and what they raise: `mesh`, `inside`, `errors`
- how a node is asked: `connection`
- which node and which session is meant: `targets`, `selections`
- what is asked: `commands`, `keys`, `records`, `glance`
- the caller's home and process: `home`, `holding`, `dumping`, `stdout`, `clock`
- values and words: `messages`, `public`, `blank`, `vocabulary`, `words`, `documents`, `durations`
"""
