"""Pure protocol cores: no I/O, no clock, no chance, no protobuf."""
