"""Words that users choose among, for front ends; a shell that completes them waits for this."""

from meshnode.core.vocabulary import ACTION_MEANINGS, ACTIONS, KINDS, SOURCES

__all__ = ["ACTIONS", "ACTION_MEANINGS", "KINDS", "SOURCES"]
