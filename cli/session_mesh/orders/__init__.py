"""Orders to sessions: to one or to many (`orders`), and the options of those to one (`single`)."""
