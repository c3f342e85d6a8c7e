"""Extends transformers' trainer by LLaVA's sampler, learning rates and projector-only checkpoints."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Sampler
from transformers import Trainer

from llava.errors import CheckpointError, OptionError
from llava.model.checkpoint.lora import is_adapter
from llava.model.llava_arch import LlavaMetaForCausalLM
from llava.protocols import Tokenizer
from llava.train.data.samplers import EpochCallback, ModalityGroupedSampler
from llava.train.data.upstream_order import (
    LengthGroupedSampler,
    get_length_grouped_indices,
    get_modality_length_grouped_indices,
    split_to_even_chunks,
)
from llava.train.lora import is_adapted, load_adapter, save_adapter
from llava.train.policy import Figure, TrainingPolicy
from llava.train.runtime.checkpoint_folders import remove_old
from llava.train.runtime.distributed import gather_metrics
from llava.train.runtime.label_watch import LabelWatch
from llava.train.runtime.resume import restore_param_group_settings
from llava.train.runtime.saving import PROJECTOR_FILE, save_model, save_projector
from llava.train.runtime.weight_states import get_mm_adapter_state_maybe_zero_3, maybe_zero_3

__all__ = [
    "LLaVATrainer",
    "LengthGroupedSampler",
    "get_length_grouped_indices",
    "get_mm_adapter_state_maybe_zero_3",
    "get_modality_length_grouped_indices",
    "maybe_zero_3",
    "split_to_even_chunks",
]


class LLaVATrainer(Trainer):  # type: ignore[misc]
    """Trains a LLaVA, or (``projector_only``) its projector.

    Without ``projector_only`` and ``learning_rates`` the arguments' ``tune_mm_mlp_adapter`` and ``mm_projector_lr``
    count, as upstream. tokenizer: another name of ``processing_class``. Raises OptionError for smoothed labels.
    """

    optimizer: Any  # torch's, or a launcher's wrapper of it

    def __init__(
        self,
        *args: Any,
        projector_only: bool | None = None,
        learning_rates: Mapping[str, float] | None = None,
        policy: TrainingPolicy | None = None,
        tokenizer: Tokenizer | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **({} if tokenizer is None else {"processing_class": tokenizer}), **kwargs)
        if self.label_smoother is not None:
            raise OptionError(
                f"--label_smoothing_factor is {self.args.label_smoothing_factor}; expected 0: a batch's labels have no "
                "positions for image tokens, which are added within the model"
            )
        if projector_only is None:
            projector_only = bool(getattr(self.args, "tune_mm_mlp_adapter", False))
        if learning_rates is None:
            rate = getattr(self.args, "mm_projector_lr", None)
            learning_rates = {} if rate is None else {"mm_projector": rate}
        self.projector_only = projector_only
        self.learning_rates = learning_rates  # by a module's name
        self.policy = policy or TrainingPolicy()  # the plug-ins' part in the run
        self.labels = LabelWatch(getattr(self.args, "model_max_length", None))
        self._figures: dict[str, list[Figure]] = defaultdict(list)
        self._pass = (-1, 0)  # the running step, and how many batches of it are done
        self.add_callback(EpochCallback())

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int] | None:
        dataset = self.train_dataset if train_dataset is None else train_dataset
        if not getattr(self.args, "group_by_modality_length", False) or dataset is None:
            default: Sampler[int] | None = super()._get_train_sampler(train_dataset)
            return default
        batch = self.args.train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps
        return ModalityGroupedSampler(batch, dataset.modality_lengths, seed=self.args.seed)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer: weight decay on matrices only, and ``learning_rates`` for their modules."""
        if self.optimizer is None:
            self.optimizer = self._new_optimizer(self.model if model is None else model)
            self._decays: list[float] = [group["weight_decay"] for group in self.optimizer.param_groups]
        created: torch.optim.Optimizer = self.optimizer
        return created

    def _new_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        decayed = set(self.get_decay_parameter_names(model))
        groups: dict[tuple[bool, float | None], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                rates = (rate for module, rate in self.learning_rates.items() if module in name.split("."))
                groups[name in decayed, next(rates, None)].append(parameter)
        optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
        settings = [
            {
                "params": parameters,
                "weight_decay": self.args.weight_decay if decay else 0.0,
                **({} if rate is None else {"lr": rate}),
            }
            for (decay, rate), parameters in groups.items()
        ]
        created: torch.optim.Optimizer = optimizer_class(settings, **options)
        return created

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.is_deepspeed_enabled:
            restore_param_group_settings(self.optimizer, self._decays, self.lr_scheduler.get_last_lr())

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """Return a step's batches, and the number of their trained tokens, which is never 0."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        return batches, self.labels.count(batches, items, self.state.global_step) if batches else items

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the trainer's step on the batch and what plug-ins add to it."""
        step, done = self.state.global_step, self._pass[1] if self._pass[0] == self.state.global_step else 0
        self._pass = step, done + 1
        first = (done * self.args.world_size + self.args.process_index) * self.args.train_batch_size
        progress = step / max(1, self.state.max_steps - 1)
        rows = len(inputs.get("input_ids", ()))  # none where a script's batches have other names
        added = self.policy.inputs(self.args.seed, step, progress, first, rows)
        loss: torch.Tensor = super().training_step(model, {**inputs, **added}, *args, **kwargs)
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Any:
        """Return the trainer's loss with the plug-ins' terms; their figures are kept for the next log line."""
        if model.training and isinstance(self.accelerator.unwrap_model(model), LlavaMetaForCausalLM):
            # A prompt's logits are no part of the loss, and may take more memory than all of the decoder's layers.
            inputs = {**inputs, "answers_only": True}
        terms = self.policy.loss_terms(model, inputs) if model.training else ()

        def with_terms(**batch: Any) -> Any:
            outputs = model(**batch)
            for term in terms:
                outputs["loss"] = outputs["loss"] + term(outputs, batch.get("num_items_in_batch"))
            return outputs

        # As the model's own output, so that the trainer scales the terms as it scales the loss.
        loss, outputs = super().compute_loss(with_terms if terms else model, inputs, return_outputs=True, **kwargs)
        for key, value in self.policy.figures(outputs).items():
            self._figures[key].append(value)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log a line, with the means of the plug-ins' figures since the last one."""
        if "loss" in logs:
            for key, figures in sorted(gather_metrics(self._figures).items()):
                logs[key] = round(sum(mean * count for mean, count in figures) / sum(n for _, n in figures), 4)
            self._figures.clear()
        super().log(logs, *args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint, and remove old ones of this run.

        transformers would count every folder ``checkpoint-*``, and remove a user's copy with them.
        """
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(*args, **kwargs)
        finally:
            self.args.save_total_limit = limit
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=None), f"checkpoint-{self.state.global_step}")
            remove_old(folder, limit, self.state.best_model_checkpoint)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        """Save a checkpoint's weights: in stage 1 the projector alone.

        Every process calls this, but under ZeRO-3 only the first has the tensors that all have gathered: the others
        must not gather them again.
        """
        folder = output_dir or self.args.output_dir
        if not (self.projector_only or is_adapted(self.model)):
            super()._save(folder, state_dict)
        elif self.args.should_save:
            (save_projector if self.projector_only else save_adapter)(self, folder, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if is_adapted(self.model):
            load_adapter(self.model, Path(resume_from_checkpoint))
            return
        if is_adapter(Path(resume_from_checkpoint)):
            raise CheckpointError(
                f"{resume_from_checkpoint} holds a LoRA adapter, but --lora_enable is not True; continue a run with "
                "the flags that it was started with, or name another --output_dir"
            )
        path = os.path.join(resume_from_checkpoint, PROJECTOR_FILE)
        if not self.projector_only or not os.path.isfile(path):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state, strict=False)

    def save_result(self, folder: str) -> None:
        """Save the result of the run: the projector in stage 1, an adapter, or the full model."""
        if self.projector_only:
            save_projector(self, folder)
        elif is_adapted(self.model):
            save_adapter(self, folder)
        else:
            save_model(self, folder)
