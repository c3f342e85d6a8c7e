"""Starts the scorer of MMBench: ``python -m llava.eval.eval_mmbench``."""

from llava.eval.eval_mmbench import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
