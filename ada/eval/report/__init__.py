"""Writes the tables, figures and page of a sweep."""
