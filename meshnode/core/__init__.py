"""Pure protocol cores: no I/O, no clock, no chance, no protobuf.

Each is called with an event and the time, and returns effects. `app/mesh/mesh.py` joins them into
one node; the simulator runs the same ones. What all stand on is here; a subject is a package, each
above what it imports:

- the ground: `errors`, `vocabulary`, `ids`, `packing`, `keys`, `sealing`, `pacing`, `floor`,
  `periods`, `summary`, `effects`
- who is a member, and what each publishes: `membership`, `feeds`
- how news travels, and who is alive: `links`
- who may do what, and what is asked of whom: `control`, `commands`
- what there is, and what it costs: `sessions`, `ledger`
- the whole mesh, folded from all feeds: `tables`
"""
