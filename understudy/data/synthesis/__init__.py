"""Synthesis: `synthesize` asks the teacher round by round, `quota` says for what, `filters` what a row must be."""
