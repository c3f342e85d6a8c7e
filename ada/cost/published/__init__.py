"""Costs as the published AdaLLaVA code counts them."""
