"""gRPC: what a node serves, and how it calls others.

- ports and who may use them: `servers`, `tls`, `guard`, `limits`, `share`, `errors`, `dialling`
- between nodes: `links`, `commands`, `enrolment`, `renewal`, `audit`, `probes`
- for its own user: `local`, `views`, `cost`, `events`, `orders`, `budgets`, `keys`, `authorities`,
  `control`, `pulses`
- for agents: `inside`
"""
