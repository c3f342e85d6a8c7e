"""From a checkpoint's name to a model that answers: what a folder holds decides, never what it is called."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import list_repo_files, snapshot_download
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
from transformers.utils import logging as transformers_logging

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.errors import CheckpointError
from llava.model.checkpoint import hf_layout
from llava.model.checkpoint.hf_layout import open_weights
from llava.model.checkpoint.lora import apply_adapter, fill, is_adapter, trained_in_full
from llava.model.checkpoint.weights_io import (
    find_weight_files,
    first_line,
    listed,
    projector_file,
    read_json,
    read_weights,
    report_misfits,
    settings_of,
)
from llava.model.families import FAMILIES, llava_classes
from llava.model.llama_tokenizer import load_tokenizer
from llava.model.llava_arch import copy_new_rows
from llava.model.placement import (
    attention,
    avoid_packing,
    fitting_dtype,
    placed,
    placing,
    quantisation,
    usable_device,
)
from llava.plugins import hooks, merged

log = logging.getLogger(__name__)

DEFAULT_CONTEXT = 2048  # tokens


def load_pretrained_model(
    model_path: str,
    model_base: str | None,
    model_name: str,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = "auto",
    device: str = "cuda",
    use_flash_attn: bool = False,
    merge_lora: bool = True,
    **kwargs: Any,
) -> tuple[Any, Any, Any, int]:
    """(tokenizer, model, image_processor, context_len) of a checkpoint folder or hub name, ready for ``generate``.

    model_base: the model that ``model_path``, a projector or a LoRA adapter alone, was trained on. merge_lora: put an
    adapter's product into the weights, so that layers can be cut; quantised weights keep it beside them. model_name:
    only for messages. image_processor is None for a plain language model. kwargs: ``dtype`` and ``attn_implementation``
    override what fits the device; others go to ``from_pretrained``.

    Raises CheckpointError where files, keys or shapes do not fit together, and OptionError for a device or a
    quantisation that is not to be had.
    """
    folder = local_folder(model_path)
    fields = read_fields(folder)
    base = _language_model_folder(folder, model_base)
    device = usable_device(device)
    quantised = load_8bit or load_4bit
    wanted = attention(use_flash_attn, kwargs.pop("attn_implementation", None))
    kwargs = {**kwargs, **placing(device, device_map, quantised), **wanted}
    kwargs.setdefault("dtype", kwargs.pop("torch_dtype", None) or fitting_dtype(device, fields, base))

    log.info("loading %s from %s", model_name, folder)
    config_class, model_class = _classes(fields)
    if quantised:
        kept = getattr(model_class, "never_quantised", ("lm_head",))
        kwargs["quantization_config"] = quantisation(load_4bit, kwargs["dtype"], kept)
    config = read_config(config_class, folder)
    if base != folder:  # the projector's training may have added tokens, which the language model does not have yet
        config.vocab_size = read_fields(base).get("vocab_size", config.vocab_size)
    with _quiet_transformers():
        tokenizer = load_tokenizer(base)
    in_full = trained_in_full(folder) if is_adapter(folder) else {}
    elsewhere = (lambda key: key in in_full or in_projector_file(key)) if base != folder else None
    model = read_model(model_class, base, elsewhere, config=config, **kwargs).eval()
    if load_4bit:
        avoid_packing(model)
    if model_class is AutoModelForCausalLM:
        return tokenizer, placed(model, device, kwargs), None, context_length(model)
    _add_image_tokens(model, tokenizer)
    if is_adapter(folder):
        fill(model, in_full, str(folder))
        model = apply_adapter(model, folder, merge=merge_lora and not quantised).eval()
    projector = projector_file(folder)
    if base != folder and projector is not None:
        _fill_from_projector_file(model, projector)
    model = placed(model, device, kwargs)
    tower = model.get_vision_tower()
    if tower is None:
        return tokenizer, model, None, context_length(model)
    tower.load_model()
    tower.to(device=model.device, dtype=model.get_input_embeddings().weight.dtype)
    return tokenizer, model, tower.image_processor, context_length(model)


def local_folder(name: str, cache_dir: str | None = None) -> Path:
    """A checkpoint's folder; a hub name is downloaded, safetensors rather than pickles where there are both."""
    if Path(name).is_dir():
        return Path(name)
    try:
        files = list_repo_files(name)
        has_safetensors = any(file.endswith(".safetensors") for file in files)
        unwanted = ["pytorch_model*.bin"] if has_safetensors else []
        unwanted += ["*.msgpack", "*.h5", "*.gguf"]
        return Path(snapshot_download(name, cache_dir=cache_dir, ignore_patterns=unwanted))
    except (OSError, ValueError) as error:
        try:
            return Path(snapshot_download(name, cache_dir=cache_dir, local_files_only=True))
        except (OSError, ValueError):
            raise CheckpointError(
                f"{name!r} is neither a folder nor a model that can be fetched from the hub ({first_line(error)}); "
                "check the path"
            ) from error


def _language_model_folder(folder: Path, model_base: str | None) -> Path:
    """The folder that holds the language model: the checkpoint's own, or ``model_base`` for a projector alone."""
    if is_adapter(folder):
        if not model_base:
            raise CheckpointError(
                f"{folder} holds a LoRA adapter; name the model that it was trained on (--model-base), or merge it "
                "with scripts/merge_lora_weights.py"
            )
        return local_folder(model_base)
    if find_weight_files(folder):
        if model_base:
            log.warning("%s is a whole checkpoint; the base model %s is not used", folder, model_base)
        return folder
    if projector_file(folder) is None:
        raise CheckpointError(
            f"{folder} holds no weights: expected model.safetensors or pytorch_model.bin (or their index), or "
            "mm_projector.bin for a projector alone"
        )
    if not model_base:
        raise CheckpointError(
            f"{folder} holds a projector alone; name the language model that it was trained on (--model-base)"
        )
    return local_folder(model_base)


def known_classes() -> dict[str, tuple[Any, Any]]:
    """``model_type`` -> config and model class, of LLaVAs: the shell's own and the plug-ins'."""
    return {**llava_classes(), **merged(hooks().model_classes())}


def read_fields(folder: Path) -> dict[str, Any]:
    """A checkpoint's config.json; of one in transformers' own LLaVA layout, what LLaVA's would say."""
    fields = read_json(folder / "config.json")
    if not hf_layout.is_hub_layout(fields):
        return fields
    return hf_layout.llava_fields(folder, {f.decoder_type: f.config_class.model_type for f in FAMILIES})


def _classes(fields: dict[str, Any]) -> tuple[Any, Any]:
    """Config and model class of a checkpoint: a LLaVA's, or transformers' for any other."""
    known = known_classes()
    if fields.get("model_type") not in known:
        return AutoConfig, AutoModelForCausalLM
    return known[fields["model_type"]]


def read_config(config_class: Any, folder: Path) -> Any:
    """A checkpoint's config, as an instance of ``config_class``. Raises CheckpointError where it cannot be one."""
    with settings_of(folder / "config.json"), _quiet_transformers():
        if not _is_hub_layout(folder):
            return config_class.from_pretrained(folder)
        config = config_class.from_dict(read_fields(folder))
        config._name_or_path = str(folder)
        return config


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Its report on the keys of a checkpoint is ours to give; old names in a config.json are no news."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`rope_scaling`", FutureWarning)
            yield
    finally:
        transformers_logging.set_verbosity(before)


def in_projector_file(key: str) -> bool:
    """Whether a tensor of this name may come from a projector-only file."""
    return "mm_projector." in key or key.endswith("image_newline")


def read_model(model_class: Any, folder: Path, may_miss: Callable[[str], bool] | None = None, **kwargs: Any) -> Any:
    """``from_pretrained``, with every misfit an error. Tensors of names that ``may_miss`` says yes to need not be in
    the folder: they start afresh, or are filled from elsewhere."""
    weights = open_weights(folder)  # opens every file: damage and pickled code end here
    keys = list(weights)
    log.debug("%d tensors in %s", len(keys), folder)
    source: Any = folder
    if foreign := _is_hub_layout(folder):
        source, kwargs = None, {**kwargs, "state_dict": weights.read()}
    with settings_of(folder / "config.json"), _quiet_transformers():
        model, found = model_class.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
        )
    if foreign:
        _complete_from_hub_layout(model, folder)
    fresh = [key for key in found["missing_keys"] if may_miss and may_miss(key)]
    if fresh:
        log.info("not in %s: %s", folder, listed(sorted(fresh)))
    report_misfits(
        str(folder),
        missing=[key for key in found["missing_keys"] if key not in fresh],
        unexpected=[key for key in found["unexpected_keys"] if key in keys],
        wrong_shapes=found["mismatched_keys"],
    )
    return model


def _is_hub_layout(folder: Path) -> bool:
    path = folder / "config.json"
    return path.is_file() and hf_layout.is_hub_layout(read_json(path))


def _complete_from_hub_layout(model: Any, folder: Path) -> None:
    """What ``from_pretrained`` looks for in a folder in LLaVA's layout: how to generate, and the tower's settings."""
    if (folder / "generation_config.json").is_file():
        with settings_of(folder / "generation_config.json"):
            model.generation_config = GenerationConfig.from_pretrained(folder)
    vision, tower = hf_layout.hub_config(folder).vision_config, model.get_vision_tower()
    tower.checkpoint_folder = folder
    tower.describe(vision, hf_layout.image_processor(folder))


def _fill_from_projector_file(model: Any, path: Path) -> None:
    """What stage 1 learned, from the file that holds it alone."""
    if hasattr(model.get_model(), "image_newline") and not any(k.endswith("image_newline") for k in read_weights(path)):
        raise CheckpointError(f"{path} has no image_newline, which this config.json's mm_patch_merge_type needs")
    model.get_model().load_projector(path)
    model.get_vision_tower().checkpoint_folder = path.parent  # not the base model's
    if getattr(model.config, "mm_use_im_start_end", False):
        copy_new_rows(model.get_input_embeddings().weight.data, 2, path)


def _add_image_tokens(model: Any, tokenizer: Any) -> None:
    """The tokens around and inside an image that some checkpoints use; embeddings grow where they must."""
    wanted = []
    if getattr(model.config, "mm_use_im_patch_token", True):
        wanted.append(DEFAULT_IMAGE_PATCH_TOKEN)
    if getattr(model.config, "mm_use_im_start_end", False):
        wanted += [DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN]
    if wanted:
        tokenizer.add_tokens(wanted, special_tokens=True)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)


def context_length(model: Any) -> int:
    """Tokens that a prompt and its answer may have together."""
    return getattr(model.config, "max_sequence_length", None) or DEFAULT_CONTEXT
