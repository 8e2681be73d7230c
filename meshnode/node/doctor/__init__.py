"""`doctor`: whom it looks at, how it looks, and what it makes of that."""
