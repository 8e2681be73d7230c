"""The version of session-mesh: the package has it from here, and a start reads no metadata."""

VERSION = "0.1.0"
