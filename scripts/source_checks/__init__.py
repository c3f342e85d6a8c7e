"""Checks of the sources themselves, made on their syntax trees: sizes, imports, types, docstrings, words."""
