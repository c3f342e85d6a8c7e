"""Computes accuracies, differences, falls in quality and plan frequencies."""
