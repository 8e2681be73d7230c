"""Readers of usage logs, and of the price lists that say what the usage costs.

A source is one module that takes lines apart; finding files, rotation and following are shared.

- sources: `sources`, `higress`, `line_form`, `claude`, `claude_line`, `codex`, `codex_totals`,
  `gemini`, `lenient`, `responses`, `places`
- files: `reading`, `ahead`, `rotation`, `rotated`, `unpacking`, `tree`, `walking`, `watching`,
  `follow`, `line_numbers`
- prices: `prices`, `price_list`, `price_clauses`, `price_names`, `own_prices`, `genai_list`
"""
