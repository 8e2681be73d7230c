"""Events, alarms and the audit log of a running node, put together."""
