"""Chooses how many image tokens are read and how many units run, by a table of what both are worth."""
