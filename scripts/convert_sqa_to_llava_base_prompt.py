"""Words ScienceQA's problems as prompts: for a chat model's training, or with worked examples for a text model.

A prompt format such as ``QCM-LEA`` names the parts of the prompt, then those of the answer: Q question, C context,
M multiple choices, L lecture, E explanation (the solution), A answer, P a marked answer after lecture and explanation.
The strings are those that LLaVA's ScienceQA checkpoints were trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from llava.errors import OptionError

Problem = Mapping[str, Any]
Message = dict[str, str]

_QUESTION, _CONTEXT = "Question: {question}\n", "Context: {context}\n"
_OPTIONS, _BECAUSE = "Options: {choice}\n", "BECAUSE: {reason}\n"
INPUTS = {
    "CQM": _CONTEXT + _QUESTION + _OPTIONS,
    "QCM": _QUESTION + _CONTEXT + _OPTIONS,
    **{f"QCM{reason}": _QUESTION + _CONTEXT + _OPTIONS + _BECAUSE for reason in ("L", "E", "LE")},
    **{f"QC{reason}M": _QUESTION + _CONTEXT + _BECAUSE + _OPTIONS for reason in ("L", "E", "LE")},
}
ANSWER_ALONE = "Answer:"
OUTPUTS = {
    "A": "Answer: The answer is {answer}.",
    "AL": "Answer: The answer is {answer}. BECAUSE: {solution}",  # so published, "L" and "E" exchanged in these two
    "AE": "Answer: The answer is {answer}. BECAUSE: {lecture}",
    "ALE": "Answer: The answer is {answer}. BECAUSE: {lecture} {solution}",
    "AEL": "Answer: The answer is {answer}. BECAUSE: {solution} {lecture}",
    "LA": "Answer: {lecture} The answer is {answer}.",
    "EA": "Answer: {solution} The answer is {answer}.",
    "LEA": "Answer: {lecture} {solution} The answer is {answer}.",
    "ELA": "Answer: {solution} {lecture} The answer is {answer}.",
    "LEPA": "{marked_reasons}###\nANSWER: {answer}.",
}
LETTERS = ("A", "B", "C", "D", "E")


class PromptSettings(Protocol):
    """Settings of a prompt with worked examples: the options' letters, the format, whether captions replace images."""

    options: Sequence[str]
    prompt_format: str
    use_caption: bool


def get_question_text(problem: Problem) -> str:
    """Return the text of the question."""
    return str(problem["question"])


def get_context_text(problem: Problem, use_caption: bool) -> str:
    """Return the hint, and the image's caption where asked for; "N/A" for neither."""
    return " ".join([problem["hint"], problem["caption"] if use_caption else ""]).strip() or "N/A"


def get_choice_text(problem: Problem, options: Sequence[str]) -> str:
    """Return the choices after their letters: ``(A) red (B) blue``."""
    return " ".join(f"({options[index]}) {choice}" for index, choice in enumerate(problem["choices"]))


def get_answer(problem: Problem, options: Sequence[str]) -> str:
    """Return the letter of the right choice."""
    return options[problem["answer"]]


def get_lecture_text(problem: Problem) -> str:
    r"""Return the lecture on one line: a line break is written as ``\n``."""
    return str(problem["lecture"]).replace("\n", "\\n")


def get_solution_text(problem: Problem) -> str:
    r"""Return the solution on one line: a line break is written as ``\n``."""
    return str(problem["solution"]).replace("\n", "\\n")


def create_one_example_chatbot(
    format: str,  # noqa: A002 - upstream's name
    question: str,
    context: str,
    choice: str,
    answer: str,
    lecture: str,
    solution: str,
    test_example: bool = True,
) -> tuple[str, str]:
    """Return a prompt, and its answer; for a test example, what an answer begins with."""
    asked, answered = _filled(format, question, context, choice, answer, lecture, solution, test_example)
    return _without_empty_reason(_single_spaced(asked)), _without_empty_reason(_single_spaced(answered))


def create_one_example(
    format: str,  # noqa: A002 - upstream's name
    question: str,
    context: str,
    choice: str,
    answer: str,
    lecture: str,
    solution: str,
    test_example: bool = True,
) -> str:
    """Return a prompt and its answer as one text; for a test example, up to where the answer begins."""
    asked, answered = _filled(format, question, context, choice, answer, lecture, solution, test_example)
    return _without_empty_reason(_single_spaced(asked + answered))


def create_one_example_gpt4(
    format: str,  # noqa: A002 - upstream's name
    question: str,
    context: str,
    choice: str,
    answer: str,
    lecture: str,
    solution: str,
    test_example: bool = True,
) -> tuple[Message, Message]:
    """Return a prompt and its answer as two messages of OpenAI's chat protocol."""
    asked, answered = _filled(format, question, context, choice, answer, lecture, solution, test_example)
    answered = _without_empty_reason(_single_spaced(answered))
    user = {"role": "user", "content": f"Can you explain {_single_spaced(asked)}?"}
    return user, {"role": "assistant", "content": answered}


def build_prompt_chatbot(
    problems: Mapping[str, Problem],
    shot_qids: Sequence[str],
    prompt_format: str,
    use_caption: bool = False,
    options: Sequence[str] = LETTERS,
    is_test: bool = False,
) -> dict[str, tuple[str, str]]:
    """Return prompt and answer of each problem by its id, for training a chat model; lectures keep their lines."""
    examples = {}
    for key in shot_qids:
        parts = _parts(problems[key], options, use_caption)
        lecture, solution = (parts.pop(name).replace("\\n", "\n") for name in ("lecture", "solution"))
        examples[key] = create_one_example_chatbot(
            prompt_format, **parts, lecture=lecture, solution=solution, test_example=is_test
        )
    return examples


def build_prompt(problems: Mapping[str, Problem], shot_qids: Sequence[str], test_qid: str, args: PromptSettings) -> str:
    """Return one prompt: the problems ``shot_qids`` with their answers, then ``test_qid`` without."""
    texts = [
        create_one_example(
            args.prompt_format, **_parts(problems[key], args.options, args.use_caption), test_example=last
        )
        for key, last in _shots_and_test(shot_qids, test_qid)
    ]
    return "\n\n".join(texts)


def build_prompt_gpt4(
    problems: Mapping[str, Problem], shot_qids: Sequence[str], test_qid: str, args: PromptSettings
) -> list[Message]:
    """Return the messages of one chat: a system message, each problem with its answer, then ``test_qid``."""
    messages = [{"role": "system", "content": "You are a helpful assistant."}]
    for key, last in _shots_and_test(shot_qids, test_qid):
        parts = _parts(problems[key], args.options, args.use_caption)
        messages += create_one_example_gpt4(args.prompt_format, **parts, test_example=last)
    return messages


def _shots_and_test(shot_qids: Sequence[str], test_qid: str) -> list[tuple[str, bool]]:
    return [*((key, False) for key in shot_qids), (test_qid, True)]


def _parts(problem: Problem, options: Sequence[str], use_caption: bool) -> dict[str, str]:
    return {
        "question": get_question_text(problem),
        "context": get_context_text(problem, use_caption),
        "choice": get_choice_text(problem, options),
        "answer": get_answer(problem, options),
        "lecture": get_lecture_text(problem),
        "solution": get_solution_text(problem),
    }


def _filled(
    prompt_format: str,
    question: str,
    context: str,
    choice: str,
    answer: str,
    lecture: str,
    solution: str,
    test_example: bool,
) -> tuple[str, str]:
    """Return prompt and answer as the format has them. Raises OptionError for a format that does not exist."""
    asked, _, answered = prompt_format.partition("-")
    if asked not in INPUTS or answered not in OUTPUTS:
        raise OptionError(
            f"the prompt format is {prompt_format!r}; expected one of {', '.join(INPUTS)}, a hyphen, and one of "
            f"{', '.join(OUTPUTS)}"
        )
    reason = {"L": lecture, "E": solution, "LE": f"{lecture} {solution}"}.get(asked.strip("QCM"), "")
    marked = [f"{name}: {text}\n" for name, text in (("LECTURE", lecture), ("SOLUTION", solution)) if text.strip()]
    given = INPUTS[asked].format(question=question, context=context, choice=choice, reason=reason)
    if test_example:
        return given, ANSWER_ALONE
    return given, OUTPUTS[answered].format(
        answer=answer, lecture=lecture, solution=solution, marked_reasons="".join(marked)
    )


def _single_spaced(text: str) -> str:
    return text.replace("  ", " ").strip()


def _without_empty_reason(text: str) -> str:
    return text.replace("BECAUSE:", "").strip() if text.endswith("BECAUSE:") else text
