"""Sessions and commands of a running node, put together: supervisors, journal, output, orders."""
