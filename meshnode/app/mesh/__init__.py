"""One node's part in the mesh: `mesh` joins all cores, and `driver` performs their effects.

What a neighbour says comes in by `incoming` and `neighbours`, what is for one goes by `outbox`;
`pace` says when, `controls` and `revoking` what follows from the control set.
"""
