"""From a checkpoint folder to a model that is ready to train: class, tokenizer, vision modules, what learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel

from llava.errors import CheckpointError, OptionError
from llava.mm_utils import grid_resolutions
from llava.model.builder import in_projector_file
from llava.model.checkpoint.folder import CheckpointFolder, open_checkpoint
from llava.model.checkpoint.read_model import make_config, read_fields, read_model
from llava.model.checkpoint.zero3 import is_zero3_sharded, match_dtype
from llava.model.embedding_rows import fill_new_rows
from llava.model.families import FAMILIES, known_classes
from llava.model.llama_tokenizer import load_tokenizer
from llava.model.placement import attention
from llava.plugins import hooks
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.lora import add_adapters, check_flags, is_adapted, quantised_loading

Arguments = Mapping[type, Any]
_SHELL_MODULES = ("model.", "lm_head.")


def make_model(arguments: Arguments) -> PreTrainedModel:
    """The model that ``--model_name_or_path`` names, in float32; plug-ins may change its config, and so its class.

    Raises ``CheckpointError`` where its files do not make up a model that can be trained.
    """
    model_args: ModelArguments = arguments[ModelArguments]
    if not model_args.model_name_or_path:
        raise OptionError("--model_name_or_path is missing; expected a checkpoint folder or a hub name")
    folder = open_checkpoint(model_args.model_name_or_path, arguments[TrainingArguments].cache_dir)
    config, model_class, is_new = _config_and_class(folder, arguments)

    def may_miss(key: str) -> bool:
        """What a plug-in's class adds starts afresh; a projector may come from stage 1."""
        added = is_new and not key.startswith(_SHELL_MODULES)
        return added or (model_args.pretrain_mm_mlp_adapter is not None and in_projector_file(key))

    model = read_model(
        model_class,
        folder,
        may_miss,
        config=config,
        **_loading(model_class, arguments),
    )
    model.config.use_cache = False
    _mend_generation_config(model)
    if arguments[TrainingArguments].lora_enable:
        add_adapters(model, arguments[TrainingArguments])
    return model


def _config_and_class(folder: CheckpointFolder, arguments: Arguments) -> tuple[Any, Any, bool]:
    """The config as plug-ins want it, the class that it names, and whether that is another than the checkpoint's."""
    fields = read_fields(folder)
    classes = known_classes()
    for family in FAMILIES:  # a language model alone, to become a LLaVA
        classes[family.decoder_type] = family.config_class, family.model_class
    found = fields.get("model_type")
    if found not in classes:
        raise CheckpointError(
            f"{folder.config_file} has model_type {found!r}; expected one of {', '.join(sorted(classes))}"
        )
    config = make_config(classes[found][0], folder, fields)
    hooks().prepare_training_config(config=config, arguments=arguments)
    config_class, model_class = classes[config.model_type]
    if not isinstance(config, config_class):
        config = config_class.from_dict({**config.to_dict(), "model_type": config_class.model_type})
        config._name_or_path = str(folder.path)
    return config, model_class, model_class is not classes[found][1]


def _loading(model_class: Any, arguments: Arguments) -> dict[str, Any]:
    """``from_pretrained``'s keywords: attention, dtype, quantisation."""
    args: TrainingArguments = arguments[TrainingArguments]
    check_flags(args)
    keywords = attention(False, arguments[ModelArguments].attn_implementation)
    # Master weights; --bf16 computes in bfloat16 under autocast. Weights that LoRA freezes need no more than that.
    keywords["dtype"] = torch.bfloat16 if args.lora_enable and args.bf16 else torch.float32
    return {**keywords, **quantised_loading(args, model_class.never_quantised)}


def _mend_generation_config(model: Any) -> None:
    """SamplingParams settings without sampling, as Vicuna's files have them, make every save fail: turn sampling on."""
    config = model.generation_config
    if not config.do_sample and (config.temperature not in (None, 1.0) or config.top_p not in (None, 1.0)):
        config.do_sample = True


def make_tokenizer(model: Any, arguments: Arguments) -> Any:
    """The checkpoint's tokenizer, with a padding token: <unk>, or under ``--version v0`` its own, else a new [PAD]."""
    model_args, training_args = arguments[ModelArguments], arguments[TrainingArguments]
    tokenizer = load_tokenizer(
        model_args.model_name_or_path,
        cache_dir=training_args.cache_dir,
        model_max_length=training_args.model_max_length,
        padding_side="right",
    )
    if model_args.version != "v0":
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.pad_token
    elif tokenizer.pad_token is None:
        _add_padding_token(tokenizer, model)
    if tokenizer.pad_token is None:
        raise CheckpointError(
            f"the tokenizer of {model_args.model_name_or_path} has neither a padding nor an unknown token; "
            "name one in its tokenizer_config.json"
        )
    return tokenizer


def _add_padding_token(tokenizer: Any, model: Any) -> None:
    """A token of its own, whose rows in both embedding tables start as the mean of the others."""
    new = tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    fill_new_rows((model.get_input_embeddings().weight, model.get_output_embeddings().weight), new)


def add_vision(model: Any, tokenizer: Any, arguments: Arguments) -> None:
    """Attach or complete tower and projector, and pass their processor and settings on to data and config."""
    model_args: ModelArguments = arguments[ModelArguments]
    data_args: DataArguments = arguments[DataArguments]
    if model_args.vision_tower is None:
        model_args.vision_tower = getattr(model.config, "mm_vision_tower", None)
        if model_args.vision_tower is not None:
            _keep_settings(model.config, model_args)
    if model_args.vision_tower is None:
        return
    model.get_model().initialize_vision_modules(model_args=model_args, fsdp=None)
    data_args.image_processor = model.get_vision_tower().image_processor
    data_args.is_multimodal = True
    data_args.mm_use_im_start_end = model_args.mm_use_im_start_end
    config = model.config
    config.image_aspect_ratio = data_args.image_aspect_ratio
    if data_args.image_aspect_ratio == "anyres":
        data_args.image_grid_pinpoints = _grid_pinpoints(config, data_args)
    config.tokenizer_padding_side = tokenizer.padding_side
    config.tokenizer_model_max_length = tokenizer.model_max_length
    config.mm_use_im_start_end = model_args.mm_use_im_start_end
    config.mm_use_im_patch_token = model_args.mm_use_im_patch_token
    config.mm_projector_lr = arguments[TrainingArguments].mm_projector_lr
    config.tune_mm_mlp_adapter = model_args.tune_mm_mlp_adapter
    config.freeze_mm_mlp_adapter = arguments[TrainingArguments].freeze_mm_mlp_adapter
    if model_args.mm_use_im_patch_token or model_args.mm_use_im_start_end:
        model.initialize_vision_tokenizer(model_args, tokenizer=tokenizer)


def _grid_pinpoints(config: Any, data_args: DataArguments) -> Any:
    """The flag's sizes, or the checkpoint's own; they are checked and put in the config."""
    points = data_args.image_grid_pinpoints or getattr(config, "image_grid_pinpoints", None)
    if not points:
        raise OptionError(
            "--image_aspect_ratio anyres needs --image_grid_pinpoints, sizes such as '[[336, 672], [672, 336]]'"
        )
    config.image_grid_pinpoints = [list(size) for size in grid_resolutions(points)]
    return config.image_grid_pinpoints


def _keep_settings(config: Any, model_args: ModelArguments) -> None:
    """A LLaVA's own settings hold where no flag says otherwise."""
    usual = ModelArguments()
    for name in ("mm_vision_select_layer", "mm_vision_select_feature", "mm_projector_type", "mm_patch_merge_type"):
        if getattr(model_args, name) == getattr(usual, name) and getattr(config, name, None) is not None:
            setattr(model_args, name, getattr(config, name))


def set_trainable_parameters(model: Any, arguments: Arguments) -> None:
    """Freeze as the flags say; in stage 1 all but the projector. The vision tower is frozen when it is read."""
    model_args, training_args = arguments[ModelArguments], arguments[TrainingArguments]
    if model_args.freeze_backbone:
        model.model.requires_grad_(False)
    projector = getattr(model.get_model(), "mm_projector", None)
    if model_args.tune_mm_mlp_adapter:
        if projector is None:
            raise OptionError("--tune_mm_mlp_adapter True needs --vision_tower: there is no projector to train")
        model.requires_grad_(False)
        projector.requires_grad_(True)
        if getattr(model.config, "mm_use_im_start_end", False):  # new tokens stand around the picture
            model.get_input_embeddings().requires_grad_(True)
    elif projector is not None:
        projector.requires_grad_(not training_args.freeze_mm_mlp_adapter)
    if is_adapted(model):
        _train_in_full_beside_adapters(model)
    match_dtype(model)
    if training_args.gradient_checkpointing and hasattr(model, "enable_input_require_grads"):
        model.enable_input_require_grads()


def _train_in_full_beside_adapters(model: Any) -> None:
    """What a plug-in's class adds learns too; all that learns does so in float32."""
    for name, parameter in model.named_parameters():
        if not name.startswith(_SHELL_MODULES):
            parameter.requires_grad_(True)
        if parameter.requires_grad and not is_zero3_sharded(parameter):
            parameter.data = parameter.data.float()
