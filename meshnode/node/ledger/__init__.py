"""The ledger of a home, with a node or without.

- read: `locating`, `usage`, `following`
- asked: `blocks`, `explaining`, `rounds`, `glancing`, `latch`
- kept: `keeping`, `rolling`, `beside`, `verifying`
- held to: `budgeting`
"""
