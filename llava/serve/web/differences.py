"""Says in what two answers to one question differ: in words, and in figures."""

from __future__ import annotations

import difflib
import html
from collections.abc import Sequence

from llava.serve.web.conversation_state import Answered
from llava.serve.web.demo_part import SIDES, DemoPart, Difference
from llava.serve.web.markup import literal


def differences(parts: Sequence[DemoPart], left: Answered, right: Answered) -> str:
    """Return HTML: one sentence, the words that differ, and a table of figures, the plug-ins' among them."""
    rows = [*(row for part in parts for row in part.differences(left, right)), *_times(left, right)]
    lines = "".join(
        f"<tr><th scope='row'>{html.escape(row.name)}</th><td>{html.escape(row.left)}</td>"
        f"<td>{html.escape(row.right)}</td><td>{html.escape(row.change)}</td></tr>"
        for row in rows
    )
    columns = "".join(f"<th scope='col'>{name}</th>" for name in (*SIDES, "change"))
    table = f"<table><thead><tr><td></td>{columns}</tr></thead><tbody>{lines}</tbody></table>" if rows else ""
    return f"<p><strong>{_sentence(left, right)}</strong></p>{_words(left.answer, right.answer)}{table}"


def first_token_ms(one: Answered) -> float | None:
    """Return an answer's time to first token without the wait before the model began; None where it is not known."""
    reply = one.reply
    return reply["time_to_first_token_ms"] - reply["queue_ms"] if "queue_ms" in reply else None


def change(left: float, right: float) -> str:
    """Return how much more or less the right figure is, in percent of the left one."""
    percent = round(100 * (right - left) / left) if left else 0
    return f"{percent:+d} %".replace("-", "\N{MINUS SIGN}") if percent else "same"


def _sentence(left: Answered, right: Answered) -> str:
    same = "Both answers are the same" if left.answer == right.answer else "The answers differ"
    times = first_token_ms(left), first_token_ms(right)
    if times[0] is None or times[1] is None:
        return f"{same}."
    earlier = times[0] - times[1]
    if abs(earlier) < 0.5:
        return f"{same}; both first tokens took {times[1]:.0f} ms."
    return f"{same}; {SIDES[1]} began {abs(earlier):.0f} ms {'earlier' if earlier > 0 else 'later'}."


def _words(left: str, right: str) -> str:
    """Return both answers with the words marked that the other one does not have there; "" where they are the same."""
    if left == right:
        return ""
    sides: tuple[list[str], list[str]] = ([], [])
    words = left.split(), right.split()
    for kind, *spans in difflib.SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        for side, shown, (start, end) in zip(words, sides, (spans[:2], spans[2:]), strict=True):
            text = literal(" ".join(side[start:end]))
            shown += [text if kind == "equal" else f"<mark>{text}</mark>"] if text else []
    names = zip(SIDES, sides, strict=True)
    return "".join(f"<p><strong>{name}</strong> {' '.join(shown)}</p>" for name, shown in names)


def _times(left: Answered, right: Answered) -> list[Difference]:
    rows = []
    first = first_token_ms(left), first_token_ms(right)
    if first[0] is not None and first[1] is not None:
        texts = (f"{first[0]:.0f} ms", f"{first[1]:.0f} ms")
        rows.append(Difference("time to first token", *texts, change(first[0], first[1])))
    later = [sum(ms) / len(ms) for one in (left, right) if (ms := one.reply.get("token_ms"))]
    if len(later) == 2:
        texts = (f"{later[0]:.1f} ms", f"{later[1]:.1f} ms")
        rows.append(Difference("inter-token latency", *texts, change(later[0], later[1])))
    return rows
