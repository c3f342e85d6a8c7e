"""Implements ``--model ada_llava`` of lmms-eval: any checkpoint that the shell opens, under a latency budget.

    lmms-eval --model ada_llava --model_args pretrained=DIR,latency_budget=0.6 --tasks pope --output_path OUT
    lmms-eval --model ada_llava --model_args pretrained=DIR,image_tokens=25%,token_selector=divprune --tasks pope

Answers are those of ``llava.eval``'s runner. In addition to the scores, lmms-eval's "throughput" (in its table and its
results file) has time to first token, inter-token latency, operations, and the executed share; with ``--log_samples``
each answer has its own in the samples' ``token_counts``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from lmms_eval.models.model_utils.gen_metrics import log_metrics
from lmms_eval.utils import simple_parse_args_string
from tqdm import tqdm

from ada.eval.lmms.likelihood import answer_loss
from ada.eval.lmms.metrics import means_by_task, metrics_of
from ada.eval.lmms.settings import batch_size_of, dtype_named, plugin_options, read_generation_kwargs
from ada.eval.lmms.task_answers import TaskAnswer, TaskQuestion, answers, images_of
from llava.errors import OptionError
from llava.eval.answering.runner import chosen_model, load_answerer
from llava.plugins import hooks, merged


@dataclass
class AnswerCost(TokenCounts):  # type: ignore[misc]
    """An answer's tokens, and its other metrics, which go next to them in the samples file."""

    metrics: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return tokens and metrics as JSON-ready fields."""
        return {**super().to_dict(), **self.metrics}


class AdaLlava(lmms):  # type: ignore[misc]
    """A LLaVA under a latency budget, as lmms-eval calls it.

    The model arguments are the constructor's, and the options of the shell's plug-ins (``latency_budget``,
    ``planner``, ``strict_latency_budget``, ``no_auto_calibrate``, ``image_tokens``, ``token_selector``,
    ``narrow_cache_gb``) under their flags' names.
    """

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
        """Load the model.

        pretrained: folder or hub name; the bundled model by default. conv_template: by default the checkpoint's own.
        device: by default the fastest available. dtype: by default what fits the device. seed: of sampling, and of the
        random planner.
        """
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
        settings |= self.answerer.options
        answerer = self.answerer
        self.keywords = merged(
            hooks().generation_options(model=answerer.model, options=settings, tokenizer=answerer.tokenizer)
        )

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> AdaLlava:
        """Make a model from ``--model_args`` and lmms-eval's own flags; of the two, the model arguments win."""
        flags = {name: value for name, value in (additional_config or {}).items() if value is not None}
        return cls(**{**flags, **simple_parse_args_string(arg_string)})

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Answer each request, and return what it cost."""
        questions = [self._question(*request.args) for request in requests]
        given: dict[int, TaskAnswer] = {}
        with tqdm(total=len(questions), desc="ada_llava", unit=" answers", disable=self.rank != 0 or None) as progress:
            for position, answer in answers(self.answerer, questions, self.batch_size, self.keywords, self.seed):
                given[position] = answer
                progress.update()
        in_order = [given[position] for position in range(len(questions))]
        metrics = [metrics_of(answer.metadata) for answer in in_order]
        self._report(in_order, means_by_task([question.task for question in questions], metrics))
        return [
            GenerationResult(
                answer.text,
                AnswerCost(answer.metadata.get("prompt_tokens"), answer.metadata["new_tokens"], metrics=own),
            )
            for answer, own in zip(in_order, metrics, strict=True)
        ]

    def loglikelihood(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Return for each request the mean loss of its answer, and whether the model itself would give that answer.

        lmms-eval takes the answer with the minimum loss for the model's choice. The pairs are wrapped, as lmms-eval
        0.7.3 turns bare ones into text.
        """
        progress = tqdm(requests, desc="ada_llava", unit=" answers", disable=self.rank != 0 or None)
        return [GenerationResult(self._loss(*request.args)) for request in progress]

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        """Refuse a task of several rounds: a plan is made for one question and its answer."""
        raise OptionError("ada_llava does not do tasks of several rounds (generate_until_multi_round)")

    def clean(self) -> None:
        """Free the model: only scoring is left to do."""
        del self.answerer
        super().clean()

    def _question(
        self, context: str, wanted: Mapping[str, Any], visuals: Callable[[Any], Any], doc_id: int, task: str, split: str
    ) -> TaskQuestion:
        generation = read_generation_kwargs(wanted)
        return TaskQuestion(task, doc_id, context, generation, lambda: visuals(self.task_dict[task][split][doc_id]))

    def _loss(self, *arguments: Any) -> tuple[float, bool]:
        if len(arguments) != 6:
            raise OptionError("ada_llava does not score answers without their questions (acc_mutual_info)")
        context, target, visuals, doc_id, task, split = arguments
        doc, title = self.task_dict[task][split][doc_id], f"question {doc_id} of {task}"
        answer = target if isinstance(target, str) else str(target(doc))
        return answer_loss(self.answerer, context, answer, images_of(visuals(doc), title), self.keywords, title)

    @staticmethod
    def _report(given: Sequence[TaskAnswer], metrics: Mapping[str, float]) -> None:
        """Add the means to lmms-eval's own throughput summary, which puts ``avg_`` before each name."""
        seconds = sum(answer.seconds for answer in given)
        tokens = sum(answer.metadata["new_tokens"] for answer in given)
        log_metrics(seconds, tokens, tokens / seconds if seconds else 0.0, {"total_requests": len(given), **metrics})


def _own_device() -> str | None:
    """Return the CUDA device of this process, one of several; None leaves the choice to the shell."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and torch.cuda.is_available()
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if several else None
