"""What users type, or give on stdin or in the environment.

- options: `options`, their values: `plain`, their help: `helping`
- completed by a shell: `completing`, `shells`
- what stands in no argv: `stdin`, `passphrases`
"""
