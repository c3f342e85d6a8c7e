"""What plug-ins do for a worker's requests: check their fields, grant options by load, add to the reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llava.plugins import merged
from llava.serve.engine.request import Finished
from llava.serve.engine.request_queue import Load


class ServingPolicy:
    """One plug-in's part. Every method may be called from several threads; ``fields`` are the request's by name."""

    def check(self, fields: Mapping[str, Any]) -> None:
        """Refuse a request before it waits: raise a ``LlavaError`` that names the field."""

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

    def check(self, fields: Mapping[str, Any]) -> None:
        for part in self.parts:
            part.check(fields)

    def grant(self, fields: Mapping[str, Any], load: Load) -> Mapping[str, Any]:
        return merged([part.grant(fields, load) for part in self.parts])

    def reply(self, fields: Mapping[str, Any], finished: Finished) -> Mapping[str, Any]:
        return merged([part.reply(fields, finished) for part in self.parts])
