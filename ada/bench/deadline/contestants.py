"""What is compared at a deadline: a server, and the fields that each request to it has."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llava.errors import OptionError

DEADLINE = "{deadline_ms}"  # in a field's text: the deadline in milliseconds


@dataclass(frozen=True)
class Contestant:
    """One way to answer. body: fields of every request, in whose texts ``DEADLINE`` is filled in.

    worker_flags: of the worker that the benchmark starts for it, where it starts one.
    """

    name: str
    body: Mapping[str, Any] = field(default_factory=dict)
    worker_flags: Sequence[str] = ()

    @classmethod
    def parse(cls, text: str) -> Contestant:
        """Read ``NAME`` or ``NAME={JSON}``. Raises OptionError."""
        name, _, fields = text.partition("=")
        try:
            body = json.loads(fields or "{}")
        except ValueError:
            body = None
        if not name.strip() or not isinstance(body, dict):
            raise OptionError(
                f"--contestant is {text!r}; expected a name, or a name with fields of its requests such as "
                f'\'total={{"latency_budget": "total={DEADLINE}ms"}}\''
            )
        return cls(name.strip(), body)

    @property
    def knows_deadline(self) -> bool:
        """Whether a request depends on its deadline; otherwise one run serves all deadlines."""
        return DEADLINE in json.dumps(self.body)

    def fields(self, deadline_ms: float) -> dict[str, Any]:
        """Return the fields of a request that is due after so many milliseconds."""
        filled: dict[str, Any] = _filled(self.body, f"{deadline_ms:g}")
        return filled


def _filled(value: Any, deadline_ms: str) -> Any:
    if isinstance(value, str):
        return value.replace(DEADLINE, deadline_ms)
    if isinstance(value, Mapping):
        return {name: _filled(one, deadline_ms) for name, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, deadline_ms) for one in value]
    return value


# What is compared where no endpoint is given, on one model: budgets that promise the deadline, with and without a
# worker that shares its time; fixed budgets; no budget.
# Every request reads its prompt anew: those that are asked once a deadline would else find it known, the others not.
ANEW = {"reuse": False}
TOTAL = {"latency_budget": f"total={DEADLINE}ms", **ANEW}
OURS = (
    Contestant("no budget", {"latency_budget": 1.0, "image_tokens": "all", **ANEW}),
    Contestant("budget 0.5", {"latency_budget": 0.5, **ANEW}),
    Contestant("total", TOTAL),
    Contestant("total, adaptive worker", TOTAL, ("--adaptive-budget", "0.3")),
)
