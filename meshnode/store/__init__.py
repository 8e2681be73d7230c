"""What survives a restart, in SQLite: one file a home, used by one thread.

- the file: `database`, `frozen`, `migrations`, `transactions`, `turns`, `asking`, `faults`, `facts`
- the mesh: `feeds`, `forks`, `heads`, `events`
- commands: `journal`, `standing`, `invites`, `audit`
- the ledger: `ledger`, `counters`, `rollups`, `folds`, `elsewhere`, `usage_log`, `reports`,
  `rounds`, `checkpoints`, `log_sessions`, `aliases`
"""
