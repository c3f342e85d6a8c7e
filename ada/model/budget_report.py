"""Reports what became of a budget: requested, granted, met or not, what ran, its operations and milliseconds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ada.cost.flops import Flops
from ada.engine.support import ASKED_FOR
from ada.image_tokens.selection import NO_IMAGE_TOKENS, RowTokens
from ada.model.clause_report import ClauseReport
from ada.quality.quality_report import QualityReport

# Old names of fields, which replies and records carry for one more release.
ALIASES = {
    "pictures": "num_images",
    "before_ms": "preprocess_ms",
    "plan_ms": "to_plan_ms",
    "expected_ms": "ttft_p50_ms",
    "predicted_ms": "ttft_p95_ms",
    "least_ms": "min_ttft_ms",
}


@dataclass(frozen=True)
class BudgetReport:
    """One answer's budget and plan. Fractions are of the decoder's units; operations are floating-point ones.

    ``requested`` is None where no budget was given. ``decode_flops`` are those of the first generated token's step.
    Operations are those that really run: a layer that was masked rather than cut counts in full.
    """

    requested: float | None
    granted: float
    prefill_share: float  # of the language model's prefill at all image tokens and layers: what a budget is a share of
    budget_met: bool
    layers: tuple[int, int]  # run, of
    heads: tuple[int, int]  # run, of; key-value groups with grouped-query attention
    neuron_groups: tuple[int, int]  # run, of
    neurons: tuple[int, int]  # run, of
    masked_layers: int
    masking: str | None  # what it costs and why, where any layer was masked
    prompt_tokens: int  # as they entered the decoder: image tokens, latency token and padding included
    prefill_flops: Flops
    decode_flops: Flops
    padding: int = 0  # of the prompt_tokens, those that a batch put before the row
    num_images: int = 0  # that the vision tower saw, crops counted
    unmerged_share: float | None = None  # where a checkpoint merges tokens: the share of a prefill on all patches
    image_tokens: RowTokens = NO_IMAGE_TOKENS  # how many there are of each image, and how many are read
    late_selector: str | None = None  # what chose the image tokens of later layers
    requested_ms: float | None = None  # time to first token, where the budget was a time
    preprocess_ms: float = 0.0  # from the question to the call: tokenizing, reading images
    to_plan_ms: float | None = None  # from the call until the plan was made
    ttft_p50_ms: float | None = None  # median from the call to the first token, on a calibrated device
    ttft_p95_ms: float | None = None  # 95th percentile from the question to the first token, as the plan is made
    min_ttft_ms: float | None = None  # ttft_p95_ms of the cheapest plan
    by_transformers: str | None = None  # why transformers' loop decoded; None where the engine did
    clauses: tuple[ClauseReport, ...] = ()  # of a budget in time
    known_tokens: tuple[int, int] = (0, 0)  # first positions on which the prefix layers, and the others, did not run
    known_crops: int = 0  # images, or crops of them, whose features were known
    quality: QualityReport | None = None  # under a promise of quality

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready fields, the sums in GFLOPs, and the old names of fields (``ALIASES``)."""
        fields = asdict(self)
        return {
            **fields,
            **{old: fields[name] for old, name in ALIASES.items()},
            "image_tokens": self.image_tokens.to_json(),
            "quality": None if self.quality is None else self.quality.to_json(),
            "prefill_gflops": sum(self.prefill_flops.values()) / 1e9,
            "decode_gflops_per_token": sum(self.decode_flops.values()) / 1e9,
        }

    @property
    def promises_more(self) -> bool:
        """Whether more than a time to first token was promised."""
        return [clause.name for clause in self.clauses] not in ([], ["ttft"])

    def summary(self) -> str:
        """Return one line for people."""
        requested = "none" if self.requested is None else f"{self.requested:g}"
        missed = "" if self.budget_met else " (below this model's minimum; ran the cheapest plan)"
        if self.clauses:
            requested = "in time" if self.requested_ms is None else f"{self.requested_ms:g} ms"
            out_of_reach = [clause for clause in self.clauses if not clause.reachable]
            minimum = ", ".join(f"{clause.min_ms:.4g} ms" + _named(clause) for clause in out_of_reach)
            missed = f" (budget not met: the minimum is {minimum} here)" if minimum else ""
        counts = f"layers {_of(self.layers)}, heads {_of(self.heads)}, neurons {_of(self.neurons)}"
        gflops = sum(self.prefill_flops.values()) / 1e9
        parts = [f"budget {requested}, granted {self.granted:.3g}{missed}", counts, f"prefill {gflops:.3g} GFLOPs"]
        if self.image_tokens.late != self.image_tokens.all or self.unmerged_share is not None:
            share = self.prefill_share if self.unmerged_share is None else self.unmerged_share
            parts.insert(1, f"{self.image_tokens.summary()}, share {share:.3g}")
        if self.promises_more:
            parts += [clause.summary() for clause in self.clauses]
        elif self.ttft_p95_ms is not None:
            parts.append(f"predicted {self.ttft_p95_ms:.4g} ms")
        if self.quality is not None:
            parts.insert(0, self.quality.summary())
        if self.by_transformers not in (None, ASKED_FOR):
            parts.append(f"decoded by transformers: {self.by_transformers}")
        return " | ".join([*parts, self.masking] if self.masking else parts)


def _named(clause: ClauseReport) -> str:
    return "" if clause.name == "ttft" else f" ({clause.name})"


def _of(pair: tuple[int, int]) -> str:
    return f"{pair[0]}/{pair[1]}"
