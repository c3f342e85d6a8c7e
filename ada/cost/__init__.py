"""Estimates what an answer costs, from shapes alone."""
