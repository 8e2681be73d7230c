"""A home and its mesh.

- made, or made a member's: `founding`, `joining`, `admitting`, `entering`, `introducing`,
  `replacing`
- what it knows of the mesh: `membership`, `roots`, `authority`, `renewing`
- its disk: `persistence`, `restoring`, `books`
"""
