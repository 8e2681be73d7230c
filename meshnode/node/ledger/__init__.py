"""The ledger of a home, with a node or without.

- read: `locating`, `usage`, `following`
- asked: `answers`, `blocks`, `explaining`, `rounds`, `glancing`, `latch`
- kept: `keeping`, `rolling`, `folding`, `beside`, `verifying`
- held to: `budgeting`
"""
