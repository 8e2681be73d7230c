"""Processes under supervision: one supervisor beside each agent, and what follows it in the node.

- in the supervisor: `supervise`, `supervisor`, `agent`, `streams`, `clients`, `inbox`, `steering`,
  `signals`, `environment`, `state_file`, `log`, `times`, `options`, `lifetime`, `last_word`,
  `sparing`, `terminal`, `sequences`
- the process tree: `tree`, `cgroup`, `holding`; those that are not in ours: `namespaces`
- in the node: `processes`, `following`, `replies`, `inbox_reader`, `output`, `pruning`,
  `log_sessions`, `directories`
"""
