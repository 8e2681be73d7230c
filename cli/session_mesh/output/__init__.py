"""What reaches a terminal, a file or a pipe.

- a View becomes bytes: `render`, `tables`, `words`, and `escaping` of what others wrote
- drawn over itself: `screen`, with what is read meanwhile: `arriving`
"""
