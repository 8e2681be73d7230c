"""What is asked of the mesh: commands to one session or many, orders, registrations, budgets."""
