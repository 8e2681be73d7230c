"""The ledger: what was used, when and by whom, and what it costs.

- an owner's: `usage_log`, `ledger_rows`, `ledger`, `rollups`, `folding`, `regained`,
  `checkpoints`
- what is counted: `counts`, `marks`, `log_sessions`, `rounds`
- money: `tiers`, `prices`, `charges`, `budgets`
"""
