"""From a checkpoint folder to a model that is ready to train: class, tokenizer, vision modules, what learns."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel

from llava.errors import CheckpointError, OptionError
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from llava.model.llama_tokenizer import load_tokenizer
from llava.plugins import hooks, merged
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments

log = logging.getLogger(__name__)

Arguments = Mapping[type, Any]
_SHELL_TYPES = ("llama", "llava", LlavaConfig.model_type)


def make_model(arguments: Arguments) -> PreTrainedModel:
    """The model that ``--model_name_or_path`` names, in float32; plug-ins may change its config, and so its class."""
    model_args: ModelArguments = arguments[ModelArguments]
    training_args: TrainingArguments = arguments[TrainingArguments]
    if not model_args.model_name_or_path:
        raise OptionError("--model_name_or_path is missing; expected a checkpoint folder or a hub name")
    classes = merged(hooks().model_classes())
    fields, _ = AutoConfig.for_model("llama").get_config_dict(model_args.model_name_or_path)
    model_type = fields.get("model_type")
    if model_type not in (*_SHELL_TYPES, *classes):
        raise CheckpointError(
            f"{model_args.model_name_or_path} has model_type {model_type!r}; expected one of "
            f"{', '.join(sorted({*_SHELL_TYPES, *classes}))}"
        )
    config_class = classes[model_type][0] if model_type in classes else LlavaConfig
    config = config_class.from_pretrained(model_args.model_name_or_path, cache_dir=training_args.cache_dir)
    hooks().prepare_training_config(config=config, arguments=arguments)
    model_class: Any = LlavaLlamaForCausalLM
    if config.model_type in classes:
        config_class, model_class = classes[config.model_type]
        config = config_class.from_dict({**config.to_dict(), "model_type": config.model_type})
        config._name_or_path = model_args.model_name_or_path
    model, loading = model_class.from_pretrained(
        model_args.model_name_or_path,
        config=config,
        cache_dir=training_args.cache_dir,
        dtype=torch.float32,  # master weights; --bf16 computes in bfloat16 under autocast
        attn_implementation=model_args.attn_implementation,
        output_loading_info=True,
    )
    _report_loading(loading, new_model=model_type != config.model_type)
    model.config.use_cache = False
    hooks().prepare_training_model(model=model, arguments=arguments)
    return model


def _report_loading(loading: Mapping[str, Any], new_model: bool) -> None:
    """New modules start fresh where the model's class is new; any other missing tensor is an error."""
    missing = [key for key in loading["missing_keys"] if "vision_tower" not in key]
    fresh = [key for key in missing if (new_model and key.startswith("scheduler.")) or "mm_projector" in key]
    lost = sorted(set(missing) - set(fresh))
    if lost:
        raise CheckpointError(f"the checkpoint lacks {len(lost)} tensors: {', '.join(lost[:5])}")
    if fresh:
        log.info("initialised afresh: %s", ", ".join(sorted(fresh)))


def make_tokenizer(arguments: Arguments) -> Any:
    """The checkpoint's tokenizer, with a padding token: its own, else <unk> as LLaVA trains with."""
    model_args, training_args = arguments[ModelArguments], arguments[TrainingArguments]
    tokenizer = load_tokenizer(
        model_args.model_name_or_path,
        cache_dir=training_args.cache_dir,
        model_max_length=training_args.model_max_length,
        padding_side="right",
    )
    if model_args.version != "v0":
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.pad_token
    if tokenizer.pad_token is None:
        raise CheckpointError(
            f"the tokenizer of {model_args.model_name_or_path} has neither a padding nor an unknown token; "
            "name one in its tokenizer_config.json"
        )
    return tokenizer


def add_vision(model: Any, tokenizer: Any, arguments: Arguments) -> None:
    """Attach or complete tower and projector, and pass their processor and settings on to data and config."""
    model_args: ModelArguments = arguments[ModelArguments]
    data_args: DataArguments = arguments[DataArguments]
    if model_args.vision_tower is None:
        model_args.vision_tower = getattr(model.config, "mm_vision_tower", None)
        if model_args.vision_tower is not None:  # a LLaVA: its own settings hold where no flag says otherwise
            for name in ("mm_vision_select_layer", "mm_vision_select_feature", "mm_projector_type"):
                setattr(model_args, name, getattr(model.config, name, getattr(model_args, name)))
    if model_args.vision_tower is None:
        return
    model.get_model().initialize_vision_modules(model_args=model_args, fsdp=None)
    data_args.image_processor = model.get_vision_tower().image_processor
    data_args.is_multimodal = True
    data_args.mm_use_im_start_end = model_args.mm_use_im_start_end
    config = model.config
    config.image_aspect_ratio = data_args.image_aspect_ratio
    config.tokenizer_padding_side = tokenizer.padding_side
    config.tokenizer_model_max_length = tokenizer.model_max_length
    config.mm_use_im_start_end = model_args.mm_use_im_start_end
    config.mm_use_im_patch_token = model_args.mm_use_im_patch_token
    config.mm_projector_lr = arguments[TrainingArguments].mm_projector_lr
    config.tune_mm_mlp_adapter = model_args.tune_mm_mlp_adapter
    config.freeze_mm_mlp_adapter = arguments[TrainingArguments].freeze_mm_mlp_adapter
    if model_args.mm_use_im_patch_token or model_args.mm_use_im_start_end:
        model.initialize_vision_tokenizer(model_args, tokenizer=tokenizer)


def choose_what_learns(model: Any, arguments: Arguments) -> None:
    """Freeze as the flags say: the vision tower always; in stage 1 all but the projector."""
    model_args, training_args = arguments[ModelArguments], arguments[TrainingArguments]
    if model_args.freeze_backbone:
        model.model.requires_grad_(False)
    projector = getattr(model.get_model(), "mm_projector", None)
    if model_args.tune_mm_mlp_adapter:
        if projector is None:
            raise OptionError("--tune_mm_mlp_adapter True needs --vision_tower: there is no projector to train")
        model.requires_grad_(False)
        projector.requires_grad_(True)
    elif projector is not None:
        projector.requires_grad_(not training_args.freeze_mm_mlp_adapter)
    tower = model.get_vision_tower()
    if tower is not None:
        tower.requires_grad_(False)
    if training_args.gradient_checkpointing and hasattr(model, "enable_input_require_grads"):
        model.enable_input_require_grads()


def complete_checkpoints(output_dir: str) -> list[Path]:
    """The output folder's ``checkpoint-*`` that were written to the end, oldest first."""
    found = [p for p in Path(output_dir).glob("checkpoint-*") if (p / "trainer_state.json").is_file()]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]))
