"""Starts the scorer of MM-Vet: ``python -m llava.eval.eval_mmvet``."""

from llava.eval.eval_mmvet import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
