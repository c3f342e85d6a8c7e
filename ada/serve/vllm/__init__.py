"""Serves AdaLLaVA-L in vLLM, with a budget for each request: a study."""
