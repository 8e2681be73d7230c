"""What reaches a terminal, a file or a pipe.

- a View becomes bytes: `render`, `tables`, `words`, and `escaping` of what others wrote
- the streams that take them whole: `writing`
- drawn over itself: `screen`, with what is read meanwhile: `arriving`
"""
