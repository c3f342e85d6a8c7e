"""Predicts and measures times on this device, so that budgets may be times."""
