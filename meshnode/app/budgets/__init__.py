"""Budgets at a node: what is spent under each, who is warned, what is held back."""
