"""Readers of usage logs, and of the price lists that say what the usage costs."""
