"""Use cases, and the driver that performs the effects of the cores.

Nothing here knows a socket, a file or a thread; what it needs of the world is in `ports`.

- one node's part in the mesh: `mesh`
- what can be seen, and followed as it changes: `queries`, `events`
- what can be done: `sessions`, `commands`, `membership`
- what it costs, and what it may: `cost`, `budgets`
- the audit log, and what is wrong: `audit`, `diagnosis`, `counting`
- shared: `ports`, `pieces`, `sets`, `outcomes`, `settling`
"""
