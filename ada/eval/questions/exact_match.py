"""Compares a given answer with the expected one, by exact match of the normalised texts."""

from __future__ import annotations


def normalise(answer: str) -> str:
    """Return ``answer`` in lower case, without surrounding space and without a full stop."""
    return answer.strip().lower().removesuffix(".").rstrip()


def is_right(given: str, expected: str) -> bool:
    """Return whether both answers are the same once normalised."""
    return normalise(given) == normalise(expected)
