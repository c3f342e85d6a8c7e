"""``--model ada_llava`` of lmms-eval: any checkpoint that the shell opens, under a latency budget.

    lmms-eval --model ada_llava --model_args pretrained=DIR,latency_budget=0.6 --tasks pope --output_path OUT

Answers are those of ``llava.eval``'s runner. Beside the scores, lmms-eval's "throughput" (in its table and its results
file) tells milliseconds to the first token and for each token behind it, operations, and the executed share; with
``--log_samples`` every answer's own are in the samples' ``token_counts``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.utils import simple_parse_args_string
from tqdm import tqdm

from ada.eval.lmms.asking import Asked, Given, answers, pictures_of
from ada.eval.lmms.figures import figures_of, means_by_task
from ada.eval.lmms.likelihood import answer_loss
from ada.eval.lmms.settings import batch_size_of, dtype_named, generation_of, plugin_options
from llava.errors import OptionError
from llava.eval.answering.runner import chosen_model, load_answerer
from llava.plugins import hooks, merged


@dataclass
class AnswerCost(TokenCounts):
    """An answer's tokens, and its other figures beside them in the samples file."""

    figures: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**super().to_dict(), **self.figures}


class AdaLlava(lmms):
    """The model arguments are the constructor's, and the options of the shell's plug-ins (``latency_budget``,
    ``planner``, ``strict_latency_budget``, ``no_auto_calibrate``) under their flags' names."""

    is_simple = True

    def __init__(
        self,
        pretrained: str | None = None,
        model_base: str | None = None,
        conv_template: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        attn_implementation: str | None = None,
        batch_size: int | str = 1,
        seed: int = 0,
        **options: Any,
    ) -> None:
        """pretrained: folder or hub name; the bundled model by default. conv_template, device, dtype: by default what
        the checkpoint says, the best device, and what fits it. seed: of sampling, and of the random planner."""
        super().__init__()
        self.batch_size, self.seed = batch_size_of(batch_size), seed
        settings = plugin_options(options)
        loading: dict[str, Any] = {} if dtype is None else {"dtype": dtype_named(dtype)}
        if attn_implementation is not None:
            loading["attn_implementation"] = attn_implementation
        self.answerer = load_answerer(
            chosen_model(pretrained),
            model_base=model_base,
            device=device or _own_device(),
            conv_mode=conv_template,
            options={**settings, "batch_size": self.batch_size},
            **loading,
        )
        self.device = self.answerer.model.device
        self.keywords = merged(hooks().generation_options(model=self.answerer.model, options=settings))

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> AdaLlava:
        """``--model_args``, and what lmms-eval has flags for; where both name a thing, the model arguments hold."""
        flags = {name: value for name, value in (additional_config or {}).items() if value is not None}
        return cls(**{**flags, **simple_parse_args_string(arg_string)})

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """An answer to each request, and what it cost."""
        questions = [self._asked(*request.args) for request in requests]
        given: dict[int, Given] = {}
        with tqdm(total=len(questions), desc="ada_llava", unit=" answers", disable=self.rank != 0 or None) as progress:
            for place, answer in answers(self.answerer, questions, self.batch_size, self.keywords, self.seed):
                given[place] = answer
                progress.update()
        in_order = [given[place] for place in range(len(questions))]
        figures = [figures_of(answer.facts) for answer in in_order]
        self._report(in_order, means_by_task([question.task for question in questions], figures))
        return [
            GenerationResult(
                answer.text, AnswerCost(answer.facts.get("prompt_tokens"), answer.facts["new_tokens"], figures=own)
            )
            for answer, own in zip(in_order, figures, strict=True)
        ]

    def loglikelihood(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """For each request the mean loss of its answer (lmms-eval takes the least for the model's choice), and whether
        the model would give that answer of its own.

        The pairs are wrapped, as lmms-eval 0.7.3 turns bare ones into text.
        """
        asked = tqdm(requests, desc="ada_llava", unit=" answers", disable=self.rank != 0 or None)
        return [GenerationResult(self._loss(*request.args)) for request in asked]

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Refused: a plan is made for one question and its answer."""
        raise OptionError("ada_llava does not do tasks of several rounds (generate_until_multi_round)")

    def clean(self) -> None:
        """Let go of the model: only scoring is left to do."""
        del self.answerer
        super().clean()

    def _asked(
        self, context: str, wanted: Mapping[str, Any], visuals: Any, doc_id: int, task: str, split: str
    ) -> Asked:
        return Asked(task, doc_id, context, generation_of(wanted), lambda: visuals(self.task_dict[task][split][doc_id]))

    def _loss(self, *arguments: Any) -> tuple[float, bool]:
        if len(arguments) != 6:
            raise OptionError("ada_llava does not score answers without their questions (acc_mutual_info)")
        context, target, visuals, doc_id, task, split = arguments
        doc, place = self.task_dict[task][split][doc_id], f"question {doc_id} of {task}"
        answer = target if isinstance(target, str) else str(target(doc))
        return answer_loss(self.answerer, context, answer, pictures_of(visuals(doc), place), self.keywords, place)

    @staticmethod
    def _report(given: Sequence[Given], figures: Mapping[str, float]) -> None:
        """Into lmms-eval's own throughput summary, which puts ``avg_`` in front of each name."""
        seconds, tokens = sum(answer.seconds for answer in given), sum(answer.facts["new_tokens"] for answer in given)
        log_metrics(seconds, tokens, tokens / seconds if seconds else 0.0, {"total_requests": len(given), **figures})


def _own_device() -> str | None:
    """Of several processes on CUDA devices each takes its own; None leaves the choice to the shell."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.cuda.is_available()
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if several else None
