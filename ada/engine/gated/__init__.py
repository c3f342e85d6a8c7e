"""Runs decode steps on a GPU in kernels that never read what plans switch off; importing this needs no Triton."""
