"""Answers a JSON-lines file of questions that take short answers: ``question_id``, ``image``, ``text``.

As model_vqa, which answers at length; this one stops at 128 tokens unless --max_new_tokens says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from llava.eval.answering.runner import flags_of
from llava.eval.model_vqa import eval_model, get_chunk, split_list
from llava.program import run_program

__all__ = ["eval_model", "get_chunk", "main", "split_list"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    args = flags_of("model_vqa_loader", __doc__, max_new_tokens=128).parse_args(arguments)
    return run_program(lambda: eval_model(args))


if __name__ == "__main__":
    raise SystemExit(main())
