"""gRPC: what a node serves, and how it calls others."""
