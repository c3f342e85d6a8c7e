"""Image tokens: which of them the decoder reads, under a latency budget."""
