"""Starts the scorer of MME: ``python -m llava.eval.eval_mme``."""

from llava.eval.eval_mme import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
