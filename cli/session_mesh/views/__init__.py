"""What of the mesh is shown, and how it reads.

- sessions in a table: `sessions`
- usage and money: `amounts`, `zones`, `blocks`, `explaining`
- as it happens: `happenings`, `live`, `monitor`, `progress`
- what a session said: `rounds`
"""
