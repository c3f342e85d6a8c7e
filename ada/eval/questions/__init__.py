"""Reads test questions and benchmarks, with a mark for every answer."""
