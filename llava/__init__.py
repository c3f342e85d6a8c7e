"""LLaVA: large language and vision assistant, on today's transformers."""
