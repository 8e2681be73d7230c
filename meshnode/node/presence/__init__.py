"""How others find a node, and it them: addresses, listeners, mDNS and seeds, its own row.

`own_socket` is where its user on this machine finds it.
"""
