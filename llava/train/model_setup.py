"""Makes a model ready to train from a checkpoint folder: class, tokenizer, vision modules, trainable parameters."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from llava.errors import CheckpointError, OptionError
from llava.model.builder import in_projector_file
from llava.model.checkpoint.folder import CheckpointFolder, open_checkpoint
from llava.model.checkpoint.read_model import make_config, read_fields, read_model
from llava.model.checkpoint.zero3 import is_zero3_sharded, match_dtype
from llava.model.embedding_rows import fill_new_rows
from llava.model.families import FAMILIES, known_classes
from llava.model.llama_tokenizer import load_tokenizer
from llava.model.placement import attention
from llava.plugins import hooks
from llava.protocols import Tokenizer
from llava.train.arguments import ModelArguments, TrainingArguments
from llava.train.lora import add_adapters, check_flags, is_adapted, quantized_loading
from llava.train.vision_settings import Arguments, VisionSettings

_SHELL_MODULES = ("model.", "transformer.", "lm_head.")


def make_model(arguments: Arguments) -> PreTrainedModel:
    """Load the model that ``--model_name_or_path`` names, in float32 (frozen under LoRA with ``--bf16``: bfloat16).

    Plug-ins may change its config, and so its class. Raises ``CheckpointError`` where its files are no model that can
    be trained.
    """
    model_args: ModelArguments = arguments[ModelArguments]
    if not model_args.model_name_or_path:
        raise OptionError("--model_name_or_path is missing; expected a checkpoint folder or a hub name")
    folder = open_checkpoint(model_args.model_name_or_path, arguments[TrainingArguments].cache_dir)
    config, model_class, added = _config_and_class(folder, arguments)

    def may_miss(key: str) -> bool:
        """Return whether a tensor may be missing: what a plug-in adds, and a projector that stage 1 gives."""
        if in_projector_file(key):
            return model_args.pretrain_mm_mlp_adapter is not None
        return key.startswith(added) and not key.startswith(_SHELL_MODULES)

    model = read_model(
        model_class,
        folder,
        may_miss,
        config=config,
        **_loading(model_class, arguments),
    )
    model.config.use_cache = False
    _fix_generation_config(model)
    if arguments[TrainingArguments].lora_enable:
        add_adapters(model, arguments[TrainingArguments])
    return model


def _config_and_class(
    folder: CheckpointFolder, arguments: Arguments
) -> tuple[PretrainedConfig, type[PreTrainedModel], tuple[str, ...]]:
    """Return the config after the plug-ins, the class that it names, and how the names of added tensors begin.

    Where the class is not the checkpoint's, that is any name.
    """
    fields = read_fields(folder)
    classes = known_classes()
    for family in FAMILIES:  # a language model without vision tower, which becomes a LLaVA
        classes[family.decoder_type] = family.config_class, family.model_class
    found = fields.get("model_type")
    if found not in classes:
        raise CheckpointError(
            f"{folder.config_file} has model_type {found!r}; expected one of {', '.join(sorted(classes))}"
        )
    config = make_config(classes[found][0], folder, fields)
    added = hooks().prepare_training_config(config=config, arguments=arguments)
    config_class, model_class = classes[config.model_type]
    if not isinstance(config, config_class):
        config = config_class.from_dict({**config.to_dict(), "model_type": config_class.model_type})
        config._name_or_path = str(folder.path)
    if model_class is not classes[found][1]:
        return config, model_class, ("",)
    return config, model_class, tuple(itertools.chain.from_iterable(added))


def _loading(model_class: type[PreTrainedModel], arguments: Arguments) -> dict[str, Any]:
    """Return the keywords of ``from_pretrained``: attention, dtype, quantization."""
    args: TrainingArguments = arguments[TrainingArguments]
    check_flags(args)
    keywords = attention(False, arguments[ModelArguments].attn_implementation)
    # Master weights are float32: --bf16 computes in bfloat16 under autocast. Weights that LoRA freezes stay bfloat16.
    keywords["dtype"] = torch.bfloat16 if args.lora_enable and args.bf16 else torch.float32
    return {**keywords, **quantized_loading(args, model_class.never_quantised)}


def _fix_generation_config(model: PreTrainedModel) -> None:
    """Turn sampling on where the config has a temperature without it, as Vicuna's files do: every save would fail."""
    config = model.generation_config
    if not config.do_sample and (config.temperature not in (None, 1.0) or config.top_p not in (None, 1.0)):
        config.do_sample = True


def make_tokenizer(model: PreTrainedModel, arguments: Arguments) -> Tokenizer:
    """Load the checkpoint's tokenizer and choose its padding token.

    That is <unk>, or under ``--version v0`` the tokenizer's own, else a new [PAD]. Raises ``CheckpointError`` where the
    tokenizer has neither.
    """
    model_args, training_args = arguments[ModelArguments], arguments[TrainingArguments]
    tokenizer: Tokenizer = load_tokenizer(
        model_args.model_name_or_path,
        cache_dir=training_args.cache_dir,
        model_max_length=training_args.model_max_length,
        padding_side="right",
    )
    if model_args.version != "v0":
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.pad_token
    elif tokenizer.pad_token is None:
        smart_tokenizer_and_embedding_resize({"pad_token": "[PAD]"}, tokenizer, model)
    if tokenizer.pad_token is None:
        raise CheckpointError(
            f"the tokenizer of {model_args.model_name_or_path} has neither a padding nor an unknown token; "
            "name one in its tokenizer_config.json"
        )
    return tokenizer


def smart_tokenizer_and_embedding_resize(
    special_tokens_dict: Mapping[str, str], tokenizer: Tokenizer, model: PreTrainedModel
) -> None:
    """Name special tokens; the rows of new ones in both embedding tables start as the mean of the others."""
    known = len(tokenizer)
    tokenizer.add_special_tokens(special_tokens_dict)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    new = len(tokenizer) - known  # not what add_special_tokens returns: it counts a known token that becomes special
    if new:
        fill_new_rows((model.get_input_embeddings().weight, model.get_output_embeddings().weight), new)


def add_vision(model: PreTrainedModel, tokenizer: Tokenizer, arguments: Arguments) -> VisionSettings | None:
    """Attach, or complete, vision tower and projector; return the settings that they have.

    None, with the model as it was, where neither a flag nor the checkpoint names a vision tower.
    """
    settings = VisionSettings.resolve(model.config, arguments)
    if settings is None:
        return None
    model.get_model().initialize_vision_modules(model_args=settings)
    settings.apply(model.config, tokenizer)
    if settings.adds_tokens:
        model.initialize_vision_tokenizer(settings, tokenizer=tokenizer)
    return settings


def set_trainable_parameters(model: PreTrainedModel, arguments: Arguments) -> None:
    """Freeze what the flags name; in stage 1 all but the projector. The vision tower was frozen when it was read."""
    model_args, training_args = arguments[ModelArguments], arguments[TrainingArguments]
    if model_args.freeze_backbone:
        model.get_model().requires_grad_(False)
    projector = getattr(model.get_model(), "mm_projector", None)
    if model_args.tune_mm_mlp_adapter:
        if projector is None:
            raise OptionError("--tune_mm_mlp_adapter True needs --vision_tower: there is no projector to train")
        model.requires_grad_(False)
        projector.requires_grad_(True)
        if getattr(model.config, "mm_use_im_start_end", False):  # the new tokens before and after an image
            model.get_input_embeddings().requires_grad_(True)
    elif projector is not None:
        projector.requires_grad_(not training_args.freeze_mm_mlp_adapter)
    if is_adapted(model):
        _train_in_full_next_to_adapters(model)
    match_dtype(model)
    if training_args.gradient_checkpointing and hasattr(model, "enable_input_require_grads"):
        model.enable_input_require_grads()


def compile_layers(model: PreTrainedModel) -> None:
    """Compile each layer of the decoder in its place, all alike, so that the compiler works once."""
    for name, module in model.named_modules():
        if isinstance(module, GradientCheckpointingLayer) and "vision_tower" not in name:
            module.compile(dynamic=True)


def _train_in_full_next_to_adapters(model: PreTrainedModel) -> None:
    """Train what a plug-in's class adds, too, and keep all trainable parameters in float32."""
    for name, parameter in model.named_parameters():
        if not name.startswith(_SHELL_MODULES):
            parameter.requires_grad_(True)
        if parameter.requires_grad and not is_zero3_sharded(parameter):
            parameter.data = parameter.data.float()
