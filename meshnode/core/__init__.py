"""Pure protocol cores: no I/O, no clock, no chance, no protobuf.

Each is called with an event and the time, and returns effects. `app/mesh.py` joins them into one
node; the simulator runs the same ones. By subject, the ground first:

- what all stand on: `errors`, `vocabulary`, `ids`, `packing`, `keys`, `sealing`, `pacing`,
  `floor`, `periods`, `summary`
- who is a member: `genesis`, `certificates`, `enrolment`, `members`
- links, and who is alive: `overlay`, `silence`, `linkgraph`, `liveness`, `broadcast`, `relay`,
  `messages`, `effects`
- feeds and their repair: `rows`, `headers`, `feed`, `room`, `own_feed`, `forks`, `recent`,
  `snapshots`, `fetching`, `holdings`, `intake`, `reconcile`
- the control set: `grants`, `roles`, `settings`, `succession`, `entries`, `revocations`,
  `rolebook`, `entitled`, `hiding`, `shares`, `control`
- commands: `steers`, `chains`, `commands`, `envelopes`, `standing`, `audit`
- sessions and the registry: `sessions`, `specializations`, `registry`, `removals`, `tables`,
  `named`, `roster`
- the ledger: `ledger`, `ledger_rows`, `marks`, `tiers`, `usage_log`, `rollups`, `regained`,
  `counts`, `checkpoints`, `rounds`, `charges`, `prices`, `budgets`, `log_sessions`
"""
