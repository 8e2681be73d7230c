"""Links: to whom a node has one, when it is silent, who is alive, and how news and calls travel."""
