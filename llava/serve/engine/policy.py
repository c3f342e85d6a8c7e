"""What plug-ins do for a worker's requests: check their fields, grant options by load, add to the reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llava.plugins import merged
from llava.serve.engine.request import Finished
from llava.serve.engine.request_queue import Load


class ServingPolicy:
    """One plug-in's part. Every method may be called from several threads; ``fields`` are the request's by name."""

    def check(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check a request's fields before it waits; return those that were parsed, which replace the text from then on.

        Raises a ``LlavaError`` that names the field.
        """
        return {}

    def grant(self, fields: Mapping[str, Any], load: Load) -> Mapping[str, Any]:
        """Options for the ``generation_options`` hook, as the request leaves the queue under this load."""
        return {}

    def reply(self, fields: Mapping[str, Any], finished: Finished) -> Mapping[str, Any]:
        """Fields for the answer's last chunk, JSON-ready."""
        return {}


class Policies(ServingPolicy):
    """All plug-ins' policies as one."""

    def __init__(self, parts: Sequence[ServingPolicy] = ()) -> None:
        self.parts = parts

    def check(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Merge what the plug-ins parsed."""
        return merged([part.check(fields) for part in self.parts])

    def grant(self, fields: Mapping[str, Any], load: Load) -> Mapping[str, Any]:
        return merged([part.grant(fields, load) for part in self.parts])

    def reply(self, fields: Mapping[str, Any], finished: Finished) -> Mapping[str, Any]:
        return merged([part.reply(fields, finished) for part in self.parts])
