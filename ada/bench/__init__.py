"""Benchmarks: what budgets save, whether they are kept, and what a served model does under load."""
