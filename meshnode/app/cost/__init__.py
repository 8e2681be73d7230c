"""What the mesh has spent.

- a question and its answer: `cutting`, `cost`, `costing`, `tally`, `sessions`, `blocks`
- the same sooner, from roll-ups: `shortcut`, `cells`, `shelves`, `splitting`
- followed as it grows: `spending`, `totals`
"""
