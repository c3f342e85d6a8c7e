"""One LLaVA model under many latency budgets: the overlay on ``llava``."""
