"""Use cases, and the driver that performs the effects of the cores.

Nothing here knows a socket, a file or a thread; what it needs of the world is in `ports`.

- one node's part in the mesh: `mesh`, `neighbours`, `incoming`, `pace`, `controls`, `revoking`,
  `outbox`, `driver`, `ports`, `pieces`, `sets`, `outcomes`
- what can be seen: `queries`, `listing`, `views`, `crowds`, `specialists`, `directory`, `indexes`,
  `changes`, `awaited`, `registered`, `sweeps`, `things`, `events`, `watching`
- sessions of this node: `opening`, `sessions`, `untold`, `endings`, `done`, `activity`, `holding`,
  `inboxes`, `own_entries`, `tickets`, `registry`, `readings`, `reporting`, `directions`
- commands: `commands`, `executing`, `lanes`, `quotas`, `relaying`, `orders`, `standing`,
  `bearers`, `keys`
- membership: `admission`, `introduced`, `renewal`, `authorities`
- cost: `cutting`, `blocks`, `tally`, `cells`, `shelves`, `cost`, `costing`, `splitting`,
  `shortcut`, `spending`, `totals`, `outlays`, `budgets`, `held`, `withholding`
- the audit log: `auditing`, `witnessing`, `alarms`
- old age, and clocks that jump: `settling`
- what is wrong: `observations`, `diagnosis`, `peer_diagnosis`, `counting`
"""
