"""Interface of a plug-in's part of the web demo: controls that become a request's fields, and panels about answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from llava.serve.web.conversation_state import Answered

SIDES = ("A", "B")
"""The names of a comparison's sides."""


class Difference(NamedTuple):
    """One figure of two answers to compare, as texts."""

    name: str
    left: str
    right: str
    change: str = ""


class DemoPart(Protocol):
    """One plug-in's part of a chat. Methods that make Gradio components are called where these belong.

    A demo shows a part more than once on a page, so a part keeps no state itself. state: what the worker of the chosen
    model says at ``/ready``, empty where it says nothing.
    """

    compared: Mapping[str, Any]
    """A request's fields, in addition, that make two answers comparable."""

    def controls(self, side: str = "") -> Sequence[Any]:
        """Make the controls above the question's field; side: one of ``SIDES`` in a comparison."""

    def settings(self) -> Sequence[Any]:
        """Make the controls that are seldom used."""

    def fields(self, values: Sequence[Any]) -> Mapping[str, Any]:
        """Return a request's fields; values: of ``controls``, then of ``settings``."""

    def fit(self, state: Mapping[str, Any]) -> Sequence[Any]:
        """Return updates of ``controls``, then of ``settings``, for another model."""

    def panels(self) -> Sequence[Any]:
        """Make and return the panels' components."""

    def show(self, answers: Sequence[Answered], images: Sequence[bytes], state: Mapping[str, Any]) -> Sequence[Any]:
        """Return the panels' values after the last of these answers; without one, those of the start.

        images: the conversation's, in its order, as PNG files.
        """

    def show_live(
        self, notes: Mapping[str, Any], answers: Sequence[Answered], state: Mapping[str, Any]
    ) -> Sequence[Any]:
        """Return the panels' values while an answer is given; notes: what its chunks say, answers: those before."""

    def differences(self, left: Answered, right: Answered) -> Sequence[Difference]:
        """Return the figures in which two answers to one question may differ."""
