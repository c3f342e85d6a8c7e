"""What a plug-in may add to the web demo: controls that become fields of a request, and a panel about the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class DemoPart(Protocol):
    """One plug-in's part of a chat; ``controls`` and ``panel`` are called where their Gradio components belong.

    A demo shows a part more than once, side by side, so it keeps nothing itself: what one browser's chats have in
    common is in ``memory``, a dict that only this part uses.
    """

    def controls(self) -> Mapping[str, Any]:
        """Make the controls: field of a request -> the component that holds its value."""

    def panel(self) -> Sequence[Any]:
        """Make the panel's components."""

    def show(self, reply: Mapping[str, Any], memory: dict[str, Any]) -> Sequence[Any]:
        """Values for the panel's components, from an answer's last chunk; from an empty one, those of the start."""
