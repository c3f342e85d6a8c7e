"""From a checkpoint's name to a model that answers: what a folder holds decides, never what it is called."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import list_repo_files, snapshot_download
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.errors import CheckpointError, OptionError
from llava.model.checkpoints import (
    CheckpointWeights,
    find_weight_files,
    first_line,
    projector_file,
    read_json,
    report_misfits,
)
from llava.model.language_model.llava_llama import LlavaConfig, LlavaLlamaForCausalLM
from llava.model.llama_tokenizer import load_tokenizer
from llava.plugins import hooks, merged
from llava.utils import device_available

log = logging.getLogger(__name__)

DEFAULT_CONTEXT = 2048  # tokens
# A 16-bit checkpoint of more bytes stays 16-bit on the CPU, as twice its size may not fit; a smaller one is widened,
# which is more exact, and faster on most CPUs.
LARGE_BYTES = 4 << 30
OUR_TYPES = (LlavaConfig.model_type, "llava")  # the second is LLaVA's own, of before 1.5


def load_pretrained_model(
    model_path: str,
    model_base: str | None,
    model_name: str,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: Any = "auto",
    device: str = "cuda",
    use_flash_attn: bool = False,
    **kwargs: Any,
) -> tuple[Any, Any, Any, int]:
    """(tokenizer, model, image_processor, context_len) of a checkpoint folder or hub name, ready for ``generate``.

    model_base: the language model's folder, where ``model_path`` holds a projector alone. model_name: only for
    messages. image_processor is None for a plain language model. kwargs: ``dtype`` and ``attn_implementation``
    override what fits the device; others go to ``from_pretrained``.

    Raises CheckpointError where files, keys or shapes do not fit together, and OptionError for a device or a
    quantisation that is not to be had.
    """
    folder = local_folder(model_path)
    fields = read_json(folder / "config.json")
    base = _language_model_folder(folder, model_base)
    device = _usable(device)
    kwargs = {**kwargs, **_placing(device, device_map), **_attention(use_flash_attn)}
    kwargs.setdefault("dtype", kwargs.pop("torch_dtype", None) or fitting_dtype(device, fields, base))
    if load_8bit or load_4bit:
        kwargs["quantization_config"] = _quantisation(load_4bit, kwargs["dtype"])

    tokenizer = load_tokenizer(base)
    log.info("loading %s from %s", model_name, folder)
    if not _is_llava(fields):
        model = _read_model(AutoModelForCausalLM, base, **kwargs)
        return tokenizer, _placed(model, device, kwargs), None, context_length(model)

    config_class, model_class = _classes(fields)
    config = config_class.from_pretrained(folder)
    model = _read_model(model_class, base, config=config, projector_elsewhere=base != folder, **kwargs)
    if base != folder:
        model.get_model().load_projector(projector_file(folder))
        model.config._name_or_path = str(folder)
    _add_image_tokens(model, tokenizer)
    model = _placed(model, device, kwargs)
    tower = model.get_vision_tower()
    if tower is None:
        return tokenizer, model, None, context_length(model)
    tower.load_model()
    tower.to(device=model.device, dtype=model.get_input_embeddings().weight.dtype)
    return tokenizer, model, tower.image_processor, context_length(model)


def local_folder(name: str) -> Path:
    """A checkpoint's folder; a hub name is downloaded, safetensors rather than pickles where there are both."""
    if Path(name).is_dir():
        return Path(name)
    try:
        files = list_repo_files(name)
        has_safetensors = any(file.endswith(".safetensors") for file in files)
        unwanted = ["pytorch_model*.bin"] if has_safetensors else []
        return Path(snapshot_download(name, ignore_patterns=[*unwanted, "*.msgpack", "*.h5", "*.gguf"]))
    except (OSError, ValueError) as error:
        try:
            return Path(snapshot_download(name, local_files_only=True))
        except (OSError, ValueError):
            raise CheckpointError(
                f"{name!r} is neither a folder nor a model that can be fetched from the hub ({first_line(error)}); "
                "check the path"
            ) from error


def _language_model_folder(folder: Path, model_base: str | None) -> Path:
    """The folder that holds the language model: the checkpoint's own, or ``model_base`` for a projector alone."""
    if (folder / "adapter_config.json").is_file():
        raise CheckpointError(
            f"{folder} holds a LoRA adapter, which is not read yet; merge it into its base model, and open the result"
        )
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


def _usable(device: str) -> str:
    """``device``, or the CPU where upstream's default, cuda, is not there."""
    kind = device.partition(":")[0]
    if kind not in ("cuda", "mps", "cpu"):
        raise OptionError(f"the device is {device!r}; expected cuda, cuda:N, mps or cpu")
    if device_available(kind):
        return device
    log.warning("the device %s is not available; using the CPU", device)
    return "cpu"


def fitting_dtype(device: str, fields: dict[str, Any], folder: Path) -> torch.dtype:
    """The dtype in which a checkpoint with these config fields runs well on a device."""
    saved = fields.get("dtype") or fields.get("torch_dtype") or "float32"
    kind = device.partition(":")[0]
    if kind == "cuda":
        return torch.bfloat16 if saved == "bfloat16" and torch.cuda.is_bf16_supported() else torch.float16
    if kind == "mps":
        return torch.float16
    large = sum(file.stat().st_size for file in find_weight_files(folder)) > LARGE_BYTES
    return torch.bfloat16 if large and saved in ("bfloat16", "float16") else torch.float32


def _placing(device: str, device_map: Any) -> dict[str, Any]:
    """Only several GPUs need a map; anything else is moved once it is read."""
    return {"device_map": device_map} if device == "cuda" and device_map is not None else {}


def _attention(use_flash_attn: bool) -> dict[str, Any]:
    if not use_flash_attn:
        return {}
    try:
        import flash_attn  # type: ignore[import-not-found]  # noqa: F401
    except ImportError as error:
        raise OptionError("flash attention needs the extra 'flash': pip install 'ada-llava[flash]'") from error
    return {"attn_implementation": "flash_attention_2"}


def _quantisation(load_4bit: bool, dtype: torch.dtype) -> BitsAndBytesConfig:
    """NF4 with double quantisation, or LLM.int8(); projector and output layer stay as they are."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise OptionError("8-bit and 4-bit loading need the extra 'quant': pip install 'ada-llava[quant]'") from error
    kept = ["mm_projector", "lm_head"]
    if not load_4bit:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_quant_type="nf4",
        llm_int8_skip_modules=kept,
    )


def _is_llava(fields: dict[str, Any]) -> bool:
    return fields.get("model_type") in OUR_TYPES or fields.get("model_type") in merged(hooks().model_classes())


def _classes(fields: dict[str, Any]) -> tuple[Any, Any]:
    """Config and model class of a LLaVA checkpoint."""
    if "text_config" in fields:
        raise CheckpointError(
            "this checkpoint is in transformers' own LLaVA layout (config.json has text_config); expected LLaVA's "
            "layout, with mm_vision_tower in config.json"
        )
    own = dict.fromkeys(OUR_TYPES, (LlavaConfig, LlavaLlamaForCausalLM))
    return {**own, **merged(hooks().model_classes())}[fields["model_type"]]


def _read_model(model_class: Any, folder: Path, projector_elsewhere: bool = False, **kwargs: Any) -> Any:
    """``from_pretrained``, with every misfit an error. Missing projector tensors may be filled from elsewhere."""
    keys = list(CheckpointWeights(find_weight_files(folder)))  # opens every file: damage and pickled code end here
    log.debug("%d tensors in %s", len(keys), folder)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch_dtype.*")
        model, found = model_class.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
        )
    elsewhere = ("mm_projector.", "image_newline") if projector_elsewhere else ()
    report_misfits(
        str(folder),
        missing=[key for key in found["missing_keys"] if not any(name in key for name in elsewhere)],
        unexpected=[key for key in found["unexpected_keys"] if key in keys],
        wrong_shapes=found["mismatched_keys"],
    )
    return model.eval()


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
        model.resize_token_embeddings(len(tokenizer))


def _placed(model: Any, device: str, kwargs: dict[str, Any]) -> Any:
    """The model on its device; a quantised or dispatched one is there already."""
    if "device_map" in kwargs or "quantization_config" in kwargs:
        return model
    return model.to(device)


def context_length(model: Any) -> int:
    """Tokens that a prompt and its answer may have together."""
    return getattr(model.config, "max_sequence_length", None) or DEFAULT_CONTEXT
