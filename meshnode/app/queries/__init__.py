"""What can be seen from a node.

- questions: `queries`, `listing`, `specialists`, `views`
- kept so that they are answered quickly: `indexes`, `directory`, `registered`, `awaited`, `sweeps`
- of too many, some of each: `crowds`
"""
