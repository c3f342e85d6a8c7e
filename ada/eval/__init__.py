"""Measures accuracy and latency of checkpoints by budget and planner."""
