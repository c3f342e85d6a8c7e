"""Interface of a plug-in's part of the web demo: controls that become a request's fields, a panel about the reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class DemoPart(Protocol):
    """One plug-in's part of a chat; ``controls`` and ``panel`` are called where their Gradio components belong.

    A demo shows a part more than once on a page, so a part keeps no state itself: what the chats of one browser share
    is in ``memory``, a dict that only this part uses.
    """

    def controls(self) -> Mapping[str, Any]:
        """Make the controls; return them by the field of a request whose value they hold; "" leaves the field out."""

    def panel(self) -> Sequence[Any]:
        """Make and return the panel's components."""

    def show(self, reply: Mapping[str, Any], memory: dict[str, Any], images: Sequence[bytes] = ()) -> Sequence[Any]:
        """Return the panel's values for an answer's last chunk; for an empty one, those of the start.

        images: the conversation's, in its order, as PNG files.
        """
