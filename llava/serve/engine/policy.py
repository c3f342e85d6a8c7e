"""The plug-ins' part in a worker's requests: check their fields, grant options by load, extend the reply."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llava.plugins import merged
from llava.serve.engine.promise import Promise
from llava.serve.engine.request import EngineRequest, Finished
from llava.serve.engine.request_queue import Load

Publish = Callable[[Mapping[str, Any]], None]


class ServingPolicy:
    """One plug-in's policy. Every method may be called from several threads; ``fields`` are the request's by name."""

    def check(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check a request's fields before it waits; return those that were parsed, which replace the text from then on.

        ``fields`` also has ``num_images``, how many the request shows. Raises a ``LlavaError`` that names the field.
        """
        return {}

    def promise(self, fields: Mapping[str, Any], prompt_tokens: int, max_new_tokens: int) -> Promise | None:
        """Return the time that a request is promised, where it is; ``prompt_tokens``: with all image tokens.

        It is refused at once, or as it leaves the queue, where its time does not suffice. ``fields`` also has
        ``num_crops``: how many images the vision tower sees, crops counted.
        """
        return None

    def grant(self, fields: Mapping[str, Any], load: Load) -> Mapping[str, Any]:
        """Return options for the ``generation_options`` hook, as the request leaves the queue under this load."""
        return {}

    def watch(self, publish: Publish) -> Mapping[str, Any]:
        """Return further options for a request whose client follows its progress.

        publish: takes JSON-ready fields for the answer's next chunk, whenever something is decided; it may be called
        from the engine's threads.
        """
        return {}

    def reply(self, fields: Mapping[str, Any], finished: Finished) -> Mapping[str, Any]:
        """Return JSON-ready fields for the answer's last chunk."""
        return {}

    def failure(self, fields: Mapping[str, Any], error: BaseException) -> BaseException:
        """Return what the client gets for an error that has ended its answer, such as a RequestFailure."""
        return error

    def state(self) -> Mapping[str, Any]:
        """Return JSON-ready fields for ``/ready``: what requests may ask of this worker."""
        return {}


class Policies(ServingPolicy):
    """All plug-ins' policies, combined into one."""

    def __init__(self, parts: Sequence[ServingPolicy] = ()) -> None:
        self.parts = parts

    def check(self, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what all policies parsed. Raises what any of them raises."""
        return merged([part.check(fields) for part in self.parts])

    def promise(self, fields: Mapping[str, Any], prompt_tokens: int, max_new_tokens: int) -> Promise | None:
        """Return the promise that is due first."""
        promises = [part.promise(fields, prompt_tokens, max_new_tokens) for part in self.parts]
        return min((one for one in promises if one is not None), key=lambda promise: promise.due_s, default=None)

    def grant(self, fields: Mapping[str, Any], load: Load) -> Mapping[str, Any]:
        """Return the options of all policies. Raises ``ValueError`` where two give the same."""
        return merged([part.grant(fields, load) for part in self.parts])

    def watch(self, publish: Publish) -> Mapping[str, Any]:
        """Return the options of all policies. Raises ``ValueError`` where two give the same."""
        return merged([part.watch(publish) for part in self.parts])

    def reply(self, fields: Mapping[str, Any], finished: Finished) -> Mapping[str, Any]:
        """Return the reply fields of all policies. Raises ``ValueError`` where two give the same."""
        return merged([part.reply(fields, finished) for part in self.parts])

    def failure(self, fields: Mapping[str, Any], error: BaseException) -> BaseException:
        """Return what all policies make of the error, one after the other."""
        return functools.reduce(lambda found, part: part.failure(fields, found), self.parts, error)

    def state(self) -> Mapping[str, Any]:
        """Return the fields of all policies. Raises ``ValueError`` where two give the same."""
        return merged([part.state() for part in self.parts])


def granted_options(policy: ServingPolicy, request: EngineRequest, load: Load) -> Mapping[str, Any]:
    """Return all of a policy's options for a request that leaves the queue under this load."""
    fields = request.generation.fields
    watched = policy.watch(request.note) if fields.get("progress") else {}
    return merged([policy.grant(fields, load), watched])
