"""Core values to protobuf and back, one file a noun."""
