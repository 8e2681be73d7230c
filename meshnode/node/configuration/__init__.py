"""What a node is told to be: flags, its user's files, and what it was started with before.

- the configuration: `config`, `config_schema`, `configured`, `configuring`, `http_options`
- a start: `options`, `told`, `again`
- the user's prices: `price_file`, `pricing`
"""
