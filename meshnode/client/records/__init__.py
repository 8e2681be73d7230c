"""What owners keep and hand out on request: output, rounds, counts, audit entries."""
