"""Starts the scorer of GQA: ``python -m llava.eval.eval_gqa``."""

from llava.eval.eval_gqa import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
