"""The audit log: what enters ours, what those of others say, and what raises an alarm."""
