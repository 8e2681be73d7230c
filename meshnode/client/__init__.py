"""The public Python client: every front end speaks to a node through it.

`mesh.MeshClient` on a home with a running node, `inside.Inside` for an agent in its session.

- the node: `mesh`, `connection`, `asking`, `messages`, `public`, `blank`, `silence`, `retrying`,
  `absence`, `pulses`, `watching`, `glance`, `clock`, `errors`
- what is meant: `targets`, `nodes`, `selections`, `wishes`, `durations`, `documents`, `words`,
  `vocabulary`
- commands: `ordering`, `orders`, `standing`, `fanning`, `outbox`, `receipts`, `registering`,
  `registrations`, `budgets`
- keys: `authority`, `blaming`, `authorities`, `keyring`, `keyfiles`, `handed`, `publickeys`,
  `roots`, `rootfile`, `revoking`
- homes: `home`, `dumping`
- the process: `stdout`
- agents: `inside`, `tickets`, `bearing`
- what owners keep: `auditing`, `counted`, `output`, `rounds`, `logged`
"""
