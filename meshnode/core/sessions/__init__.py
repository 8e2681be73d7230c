"""Sessions of agents, and the registry of what agents are good at."""
