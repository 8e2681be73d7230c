"""Commands at their owner, and on their way to it.

- judged, journalled, executed: `commands`, `executing`, `lanes`, `quotas`
- through others: `relaying`
- kills that stand: `orders`, `standing`
- session keys: `bearers`, `keys`
"""
