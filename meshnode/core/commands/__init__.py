"""Commands: what is signed and sealed, by which chain of keys, what stands, what is on record."""
