"""Answers a JSON-lines file of questions that take short answers: ``question_id``, ``image``, ``text``.

The same as model_vqa, except that an answer ends at 128 tokens unless --max_new_tokens says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from llava.eval.answering.settings import make_parser
from llava.eval.model_vqa import eval_model, get_chunk, split_list
from llava.program import run_program

__all__ = ["eval_model", "get_chunk", "main", "split_list"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = make_parser("model_vqa_loader", __doc__, max_new_tokens=128).parse_args(arguments)
    return run_program(lambda: eval_model(args))


if __name__ == "__main__":
    raise SystemExit(main())
