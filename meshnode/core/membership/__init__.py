"""Who is a member: the mesh's genesis, certificates, the handshake of a joiner, a member's row."""
