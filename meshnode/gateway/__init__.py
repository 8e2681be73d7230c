"""The HTTP front door: the same use cases as gRPC, with a session key as bearer; decides nothing.

Imported only when `--http` or `--metrics` is on: it needs the extra `http`.

- on the way in: `listening`, `places`, `doorkeeper`, `heads`, `strict`, `desk`
- answers: `front`, `routes`, `acting`, `candidates`, `repeats`, `cost`, `pages`, `problems`
- the document: `openapi`, `examples`
- metrics: `metrics`, `scraping`
"""
