"""The line at the bottom of Claude Code: what it says (`line`), and the figures it has (`kept`)."""
