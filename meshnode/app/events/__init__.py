"""What happens in the mesh, told once and in an order that can be resumed."""
