r"""Answers questions without images by a model at a server that speaks OpenAI's chat protocol.

OPENAI_BASE_URL=http://localhost:8000/v1 python -m llava.eval.qa_baseline_gpt35 --question questions.jsonl \
        --output ANSWERS.jsonl
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from llava.errors import OptionError
from llava.eval.scoring.llm_judge import MAX_CONNECTIONS, Judge
from llava.eval.scoring.matching import by_id
from llava.files.fields import Identifier, required_field
from llava.files.jsonl import Record, RecordFile, read_records
from llava.program import run_program

MODEL = "gpt-3.5-turbo"
MODEL_ID = "gpt-3.5-turbo:20230327"
SYSTEM = "You are a helpful assistant."


def get_answer(question_id: Identifier, question: str, max_tokens: int) -> Record:
    """Return the model's answer as a record: ``answer_id``, ``question_id``, ``model_id``, ``text``.

    Raises ``LlavaError`` where the server gives none.
    """
    return _answer(Judge(MODEL, max_tokens, temperature=None), MODEL_ID, question_id, question)


def _answer(model: Judge, model_id: str, question_id: Identifier, question: str) -> Record:
    seal = f"{model_id}\n{question_id}\n{question}"
    return {
        "answer_id": uuid.uuid5(uuid.NAMESPACE_OID, seal).hex,
        "question_id": question_id,
        "model_id": model_id,
        "text": model.ask(SYSTEM, question),
    }


def answer_all(questions: Path, output: Path, max_tokens: int = 1024, model: str = MODEL) -> None:
    """Answer the questions that ``output`` has no answer to; the finished file is in the order of ``question_id``.

    Raises ``DataError`` for questions that cannot be used, ``OptionError`` for an output of other questions.
    """
    asked = by_id(read_records(questions, "--question"), "question_id", f"--question {questions}")
    texts = {key: required_field(q, "text", str, f"--question {questions}: question {key}") for key, q in asked.items()}
    model_id = MODEL_ID if model == MODEL else model
    file = RecordFile(output)
    answers = by_id(file.records, "question_id", str(output))
    foreign = [key for key, answer in answers.items() if key not in asked or answer.get("model_id") != model_id]
    if foreign or (file.complete and len(answers) < len(asked)):
        raise OptionError(f"{output} holds answers to other questions; remove it, or choose another --output")
    waiting = [key for key in asked if key not in answers]
    if waiting:
        ask = functools.partial(_answer, Judge(model, max_tokens, temperature=None), model_id)
        _answer_in_parallel(ask, {key: (asked[key]["question_id"], texts[key]) for key in waiting}, file)
    file.finish(sorted(file.records, key=lambda answer: _order(answer["question_id"])))


def _answer_in_parallel(
    ask: Callable[[Identifier, str], Record], waiting: dict[str, tuple[Identifier, str]], file: RecordFile
) -> None:
    with concurrent.futures.ThreadPoolExecutor(MAX_CONNECTIONS) as executor:
        futures = [executor.submit(ask, *question) for question in waiting.values()]
        try:
            for future in tqdm(concurrent.futures.as_completed(futures), total=len(futures), unit=" answers"):
                file.append([future.result()])
        finally:
            executor.shutdown(cancel_futures=True)


def _order(key: Identifier) -> tuple[bool, Identifier]:
    """Return what ids are sorted by: integers before texts."""
    return isinstance(key, str), key


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.qa_baseline_gpt35",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fields = "questions, JSON lines: question_id and text"
    parser.add_argument("-q", "--question", type=Path, required=True, help=fields)
    parser.add_argument("-o", "--output", type=Path, required=True, help="file to write the answers to, JSON lines")
    parser.add_argument("--max-tokens", type=int, default=1024, help="longest answer, in tokens")
    parser.add_argument("--model", default=MODEL, help="name of the model at the server (default: %(default)s)")
    args = parser.parse_args(arguments)
    return run_program(lambda: answer_all(args.question, args.output, args.max_tokens, args.model))


if __name__ == "__main__":
    raise SystemExit(main())
