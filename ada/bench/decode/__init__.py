"""The benchmark of the decode engine: per token and per prompt, next to transformers and to what memory allows."""
