"""The composition root: the only place that constructs everything.

`main` brings a node up, `serving` runs it, `node` is it. The verbs that need no running node call
functions of this package too.

- starting and ending: `main`, `detached`, `loading`, `serving`, `lock`, `node`, `ground`,
  `background`, `world`, `fronting`, `ending`, `init`
- what it finds around it: `clock`, `names`, `version`
- what it is told: `configuration`
- its home, and its place in the mesh: `homes`, `presence`
- what it does: `sessions`, `ledger`, `audit`
- without a node, or with one in a container: `offline`, `doctor`, `containers`
"""
