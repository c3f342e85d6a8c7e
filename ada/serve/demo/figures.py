"""Puts a reply's budget and what ran into words: rows of figures about one answer, and about two to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llava.serve.web.conversation_state import Answered
from llava.serve.web.demo_part import Difference
from llava.serve.web.differences import change

COUNTS = (("layers", "layers"), ("attention heads", "heads"), ("neuron groups", "neuron_groups"))


def answer_ms(one: Answered) -> float:
    """Return an answer's time to first token in milliseconds, without the wait before the model began."""
    return float(one.reply["time_to_first_token_ms"] - one.reply["queue_ms"])


def knew(one: Answered) -> bool:
    """Return whether some of an answer's prompt was read before, so that its time is not that of a new one."""
    report = one.reply["latency_budget"]
    return bool(max(report.get("known_tokens", (0,))) or report.get("known_crops"))


def budget_of(one: Answered) -> str:
    """Return what was asked for: a share in percent, or milliseconds."""
    report = one.reply["latency_budget"]
    if report["requested_ms"] is not None:
        return f"{report['requested_ms']:g} ms"
    return "none" if report["requested"] is None else f"{100 * report['requested']:.3g} %"


def full_model_ms(answers: Sequence[Answered]) -> float | None:
    """Return what the full model last took to its first token on a new prompt; None where it was not asked."""
    times = [answer_ms(one) for one in answers if one.reply.get("latency_budget") and _is_full(one)]
    return times[-1] if times else None


def _is_full(one: Answered) -> bool:
    report, tokens = one.reply["latency_budget"], one.reply["image_tokens"]
    return report["granted"] >= 1 and tokens["late"] == tokens["all"] and not knew(one)


def rows(one: Answered, answers: Sequence[Answered]) -> list[tuple[str, str]]:
    """Return a table's rows about an answer: (label, value); answers: all of the conversation."""
    reply = one.reply
    report, token_ms = reply["latency_budget"], reply["token_ms"]
    full = full_model_ms(answers)
    compared = "" if full is None or _is_full(one) else f"; the full model took {full:.0f} ms"
    known = "; some of the prompt was known from before" if knew(one) else ""
    predicted_ms = report.get("ttft_p95_ms")
    predicted = "" if predicted_ms is None else f"; {predicted_ms:.0f} ms were predicted"
    found = [
        ("budget", _asked(report)),
        ("units granted", _granted(report)),
        *_tokens(reply["image_tokens"]),
        *((label, f"{report[key][0]} of {report[key][1]}") for label, key in COUNTS),
        ("prefill", _operations(report["prefill_gflops"], report["whole_prefill_gflops"])),
        ("each token", _operations(report["decode_gflops_per_token"], report["whole_decode_gflops_per_token"])),
        ("time to first token", f"{answer_ms(one):.0f} ms{predicted}{compared}{known}"),
        ("inter-token latency", f"{sum(token_ms) / len(token_ms):.1f} ms" if token_ms else "none: one token"),
    ]
    return [row for row in found if row[1]]


def differences(left: Answered, right: Answered) -> list[Difference]:
    """Return the figures of two answers: what was asked for, what ran."""
    if not (left.reply.get("latency_budget") and right.reply.get("latency_budget")):
        return []
    a, b = left.reply["latency_budget"], right.reply["latency_budget"]
    read_a, read_b = left.reply["image_tokens"], right.reply["image_tokens"]
    shares = [100 * report["prefill_share"] for report in (a, b)]
    found = [
        Difference("budget", budget_of(left), budget_of(right), "same" if budget_of(left) == budget_of(right) else ""),
        Difference("share of the prefill", f"{shares[0]:.0f} %", f"{shares[1]:.0f} %", change(*shares)),
    ]
    if read_a["all"]:
        found.append(Difference("image tokens", _read(read_a), _read(read_b), change(read_a["kept"], read_b["kept"])))
    for label, key in COUNTS:
        (run_a, of_a), (run_b, of_b) = a[key], b[key]
        found.append(Difference(label, f"{run_a} of {of_a}", f"{run_b} of {of_b}", change(run_a, run_b)))
    return found


def _asked(report: Mapping[str, Any]) -> str:
    if report["requested_ms"] is not None:
        return f"{report['requested_ms']:g} ms to the first token"
    return "" if report["requested"] is None else f"{100 * report['requested']:.3g} % of the compute"


def _granted(report: Mapping[str, Any]) -> str:
    text = f"{100 * report['granted']:.0f} %" + ("" if report["met"] else ": over the budget, the cheapest plan")
    if report["load_multiplier"] < 1:
        text += f", lowered to {report['allowed']:.3g} while requests wait"
    return text


def _tokens(counts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the row about image tokens; none for a question without an image."""
    return [("image tokens", _read(counts))] if counts["all"] else []


def _read(counts: Mapping[str, Any]) -> str:
    later = "" if counts["late"] == counts["kept"] else f", {counts['late']} in later layers"
    return f"{counts['kept']} of {counts['all']}{later}"


def _operations(gflops: float, full_gflops: float) -> str:
    return f"{gflops:.3g} of {full_gflops:.3g} GFLOPs ({100 * gflops / full_gflops:.0f} %)"
