"""Makes a LLaVA under a latency budget a model of lmms-eval."""
