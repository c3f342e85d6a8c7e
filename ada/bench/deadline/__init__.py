"""The benchmark of accuracy at a deadline: an answer that comes late is wrong."""
