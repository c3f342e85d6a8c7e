"""Answers questions under planners and budgets, and stores the answers."""
