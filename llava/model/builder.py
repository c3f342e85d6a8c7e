"""Opens a checkpoint as a model that answers; what its folder holds decides how, never what it is called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.errors import CheckpointError, OptionError
from llava.model.checkpoint.adapter_chain import adapter_chain
from llava.model.checkpoint.folder import CheckpointFolder, CheckpointKind, open_checkpoint
from llava.model.checkpoint.lora import adapter_keys, apply_adapter, fill, trained_in_full
from llava.model.checkpoint.neuron_order import ORDER_FILE, order_of, reorder_neurons
from llava.model.checkpoint.quiet import quiet_loading
from llava.model.checkpoint.read_model import make_config, read_fields, read_model
from llava.model.checkpoint.weights_io import read_weights
from llava.model.embedding_rows import copy_new_rows
from llava.model.families import known_classes
from llava.model.int8_linear import quantise_int8
from llava.model.llama_tokenizer import load_tokenizer
from llava.model.multimodal_encoder.builder import tower_of
from llava.model.multimodal_encoder.tower_files import IN_CHECKPOINT
from llava.model.placement import (
    as_stored,
    attention,
    avoid_packing,
    fitting_dtype,
    placed,
    placing,
    quantisation,
    usable_device,
)
from llava.model.sequence_length import context_length
from llava.protocols import ImageProcessor, LlavaModel, Tokenizer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loading:
    """What the loaders of the four kinds of checkpoint need.

    folder: the checkpoint. base: where the language model is, ``folder`` itself for a full checkpoint. between: the
    adapters that ``folder``'s was trained on, the first one first. keywords: ``from_pretrained``'s. merge_lora: whether
    an adapter's product goes into the weights.
    """

    folder: CheckpointFolder
    base: CheckpointFolder
    between: tuple[CheckpointFolder, ...]
    config: Any
    model_class: Any
    keywords: dict[str, Any]
    tokenizer: Tokenizer
    merge_lora: bool


@quiet_loading()
def load_pretrained_model(
    model_path: str,
    model_base: str | None,
    model_name: str,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: str | dict[str, Any] | None = "auto",
    device: str = "cuda",
    use_flash_attn: bool = False,
    merge_lora: bool = True,
    multimodal: bool = True,
    overwrite_config: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> tuple[Tokenizer, LlavaModel, ImageProcessor | None, int]:
    """Load a checkpoint folder or hub name: (tokenizer, model, image_processor, context length in tokens).

    model_base: the model that ``model_path``, a projector or a LoRA adapter alone, was trained on; an adapter's own
    config may name it, and it may be an adapter, too. merge_lora: put an adapter's product into the weights, so that
    layers can be cut; 4-bit weights keep it next to them. model_name: only for messages. image_processor is None for a
    plain language model. overwrite_config: fields that take the place of a LLaVA's own in config.json, and
    ``multimodal``, which has no effect, are LLaVA-NeXT's. kwargs: ``dtype`` and ``attn_implementation`` override what
    fits the device; others go to ``from_pretrained``.

    Raises CheckpointError where files, keys or shapes do not fit one another, and OptionError for a device or a
    quantisation that is not available.
    """
    folder = open_checkpoint(model_path)
    fields = {**read_fields(folder), **(overwrite_config or {})}
    base, *between = _base_folders(folder, model_base)
    fields = as_stored(fields, base.weights)
    device = usable_device(device)
    load_8bit = load_8bit and not load_4bit
    keywords = {**kwargs, **placing(device, device_map, load_8bit, load_4bit)}
    keywords.update(attention(use_flash_attn, keywords.pop("attn_implementation", None)))
    fitting = fitting_dtype(device, fields, base.weight_files)
    keywords.setdefault("dtype", keywords.pop("torch_dtype", None) or fitting)
    config_class, model_class = known_classes().get(fields.get("model_type", ""), (AutoConfig, AutoModelForCausalLM))
    if load_4bit:
        keywords["quantization_config"] = quantisation(True, keywords["dtype"], _never_quantised(model_class))
    log.info("loading %s from %s", model_name, folder.path)
    config = make_config(config_class, folder, fields)
    merge = merge_lora and not load_4bit
    task = Loading(folder, base, tuple(between), config, model_class, keywords, load_tokenizer(base.path), merge)
    model = _load(task).eval()
    if load_8bit and not quantise_int8(model, (*_never_quantised(model_class), *IN_CHECKPOINT)):
        raise OptionError(f"the weights in {base.path} are quantised already; leave out --load-8bit")
    model = placed(model, device, keywords)
    return task.tokenizer, model, _load_tower(model, folder, *between, base), context_length(model.config)


def _never_quantised(model_class: Any) -> tuple[str, ...]:
    """How the names of modules begin that keep the weights of the checkpoint."""
    kept: tuple[str, ...] = getattr(model_class, "never_quantised", ("lm_head",))
    return kept


def in_projector_file(key: str) -> bool:
    """Return whether a tensor of this name may come from a projector-only file."""
    return "mm_projector." in key or key.endswith("image_newline")


def _base_folders(folder: CheckpointFolder, model_base: str | None) -> list[CheckpointFolder]:
    """Return where the language model is, ``folder`` itself or its base, then the adapters from there to ``folder``."""
    path = folder.path
    if folder.kind is CheckpointKind.FULL:
        if model_base:
            log.warning("%s is a full checkpoint; the base model %s is not used", path, model_base)
        return [folder]
    if folder.kind is CheckpointKind.EMPTY:
        raise CheckpointError(
            f"{path} holds no weights: expected model.safetensors or pytorch_model.bin (or their index), or "
            "mm_projector.bin for a projector alone"
        )
    if folder.kind is CheckpointKind.LORA:
        return adapter_chain(folder, model_base)[:0:-1]
    if model_base:
        return [open_checkpoint(model_base)]
    raise CheckpointError(
        f"{path} holds a projector alone; name the language model that it was trained on (--model-base)"
    )


def _load_full(task: Loading) -> Any:
    """Load a LLaVA of which the folder holds all weights."""
    model = _read(task)
    _add_image_tokens(model, task.tokenizer, may_shrink=False)
    return model


def _load_projector(task: Loading) -> Any:
    """Load the base's language model, and fill the projector from its own file."""
    model = _read(task, in_projector_file)
    _add_image_tokens(model, task.tokenizer)
    _fill_from_projector_file(model, task.folder)
    return model


def _load_lora(task: Loading) -> Any:
    """Load the base; for each adapter, the checkpoint's last, fill what was trained in full, and apply it.

    The vision tower is read only if it was trained: the adapter's config would otherwise make adapters in it, too, as
    its projections have the same names as the decoder's. Raises OptionError where weights that cannot be changed have
    several adapters, and CheckpointError where there is no projector.
    """
    adapters = [*task.between, task.folder]
    if len(adapters) > 1 and "quantization_config" in task.keywords:
        raise OptionError(
            f"{task.folder.path} is an adapter of an adapter, which 4-bit weights cannot take; leave out --load-4bit, "
            "or merge it with scripts/merge_lora_weights.py first"
        )
    in_full = {key for adapter in adapters for key in trained_in_full(adapter.path)}
    from_file = any(adapter.projector_file for adapter in adapters)

    def may_miss(key: str) -> bool:
        if in_projector_file(key) and not from_file and key not in in_full:
            raise CheckpointError(
                f"{key} is neither in {task.base.path} nor in {task.folder.path}; copy the mm_projector.bin that its "
                "training started from (--pretrain_mm_mlp_adapter) into the latter"
            )
        return key in in_full or in_projector_file(key)

    model: Any = _read(task, may_miss)
    _add_image_tokens(model, task.tokenizer)
    for adapter in adapters:
        model = _with_adapter(model, task, adapter)
    return model


def _with_adapter(model: Any, task: Loading, adapter: CheckpointFolder) -> Any:
    in_full = trained_in_full(adapter.path)
    names = (*in_full, *adapter_keys(adapter.path))
    if any(prefix in name for name in names for prefix in IN_CHECKPOINT):
        _read_tower(model, task.folder, *task.between, task.base)
    order = order_of(adapter.path)
    if order is not None:
        reorder_neurons(model, order, str(adapter.path / ORDER_FILE))
    fill(model, in_full, str(adapter.path))
    _fill_from_projector_file(model, adapter)
    return apply_adapter(model, adapter.path, merge=task.merge_lora or adapter is not task.folder)


_LOADERS: dict[CheckpointKind, Callable[[Loading], Any]] = {
    CheckpointKind.FULL: _load_full,
    CheckpointKind.PROJECTOR: _load_projector,
    CheckpointKind.LORA: _load_lora,
}


def _load(task: Loading) -> Any:
    """Load the model with the loader of its kind; a plain language model is of transformers' own class."""
    return _read(task) if task.model_class is AutoModelForCausalLM else _LOADERS[task.folder.kind](task)


def _read(task: Loading, may_miss: Callable[[str], bool] | None = None) -> Any:
    """Read the base's weights into the model that the checkpoint's config describes."""
    config, adapters = task.config, [] if task.base is task.folder else [task.folder, *reversed(task.between)]
    if adapters:  # training may have added tokens, which the language model does not have yet
        config.vocab_size = read_fields(task.base).get("vocab_size", config.vocab_size)
    with tower_of(config, [one.path for one in adapters]) as rename:
        model = read_model(task.model_class, task.base, may_miss, config=config, **task.keywords)
        rename(model)
    if adapters:  # the config names the base now
        model.config._name_or_path = str(task.folder.path)
    if getattr(task.keywords.get("quantization_config"), "load_in_4bit", False):
        avoid_packing(model)
    return model


def _fill_from_projector_file(model: PreTrainedModel, folder: CheckpointFolder) -> None:
    """Fill the projector, and rows of added tokens, from the folder's projector-only file, where there is one."""
    path = folder.projector_file
    if path is None:
        return
    if hasattr(model.get_model(), "image_newline") and not any(k.endswith("image_newline") for k in read_weights(path)):
        raise CheckpointError(f"{path} has no image_newline, which this config.json's mm_patch_merge_type needs")
    model.get_model().load_projector(path)
    model.get_vision_tower().checkpoint_folder = folder.path  # not the base model's
    if getattr(model.config, "mm_use_im_start_end", False):
        copy_new_rows(model.get_input_embeddings().weight.data, 2, path)


def _add_image_tokens(model: PreTrainedModel, tokenizer: Tokenizer, may_shrink: bool = True) -> None:
    """Add the tokens around and inside an image that some checkpoints use; embeddings grow where they must."""
    wanted = [DEFAULT_IMAGE_PATCH_TOKEN] if getattr(model.config, "mm_use_im_patch_token", True) else []
    if getattr(model.config, "mm_use_im_start_end", False):
        wanted += [DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN]
    tokenizer.add_tokens(wanted, special_tokens=True)
    rows, size = model.get_input_embeddings().num_embeddings, len(tokenizer)
    # A base's table shrinks as in training: Qwen2's is longer than its tokenizer, and new tokens are to be its last.
    if size > rows or (size < rows and wanted and may_shrink):
        model.resize_token_embeddings(size, mean_resizing=False)


def _load_tower(model: PreTrainedModel, *folders: CheckpointFolder) -> ImageProcessor | None:
    """Read the tower as ``_read_tower`` does, and return its image processor; None for a model without a tower."""
    tower = _read_tower(model, *folders)
    if tower is None:
        return None
    tower.to(device=model.device, dtype=model.get_input_embeddings().weight.dtype)
    processor: ImageProcessor = tower.image_processor
    return processor


def _read_tower(model: PreTrainedModel, *folders: CheckpointFolder) -> Any:
    """Read the vision tower's weights, unless they are, and return it; None for a model without a tower.

    folders: those that are read already; the tower's own is one of them, or is opened.
    """
    tower = model.get_vision_tower() if hasattr(model, "get_vision_tower") else None
    if tower is not None:
        tower.load_model(checkpoint=next((one for one in folders if one.path == tower.checkpoint_folder), None))
    return tower
