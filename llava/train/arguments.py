"""The flags of ``llava/train/train.py``: LLaVA's three dataclasses on today's transformers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import transformers
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from llava.errors import OptionError
from llava.utils import device_available


@dataclass
class ModelArguments:
    """Which model, and which parts of it learn."""

    model_name_or_path: str = field(default="", metadata={"help": "checkpoint folder or hub name to start from"})
    version: str = field(default="v0", metadata={"help": "conversation template: v1, plain, llava_llama_2, ..."})
    freeze_backbone: bool = field(default=False, metadata={"help": "keep the language model as it is"})
    tune_mm_mlp_adapter: bool = field(default=False, metadata={"help": "stage 1: only the projector learns"})
    vision_tower: str | None = field(default=None, metadata={"help": "CLIP vision tower: folder or hub name"})
    mm_vision_select_layer: int = field(default=-1, metadata={"help": "hidden states of this layer are the features"})
    pretrain_mm_mlp_adapter: str | None = field(default=None, metadata={"help": "mm_projector.bin of stage 1"})
    mm_projector_type: str = field(default="linear", metadata={"help": "linear, mlpNx_gelu or identity"})
    mm_use_im_start_end: bool = field(default=False, metadata={"help": "put tokens around a picture"})
    mm_use_im_patch_token: bool = field(default=True, metadata={"help": "add a token for picture patches"})
    mm_patch_merge_type: str = field(default="flat", metadata={"help": "how patch features are merged"})
    mm_vision_select_feature: str = field(default="patch", metadata={"help": "patch, or cls_patch"})
    attn_implementation: str | None = field(
        default=None, metadata={"help": "eager, sdpa, flash_attention_2 or flex_attention"}
    )


@dataclass
class DataArguments:
    """Which data, and how pictures are prepared."""

    data_path: str = field(default="", metadata={"help": "training file: LLaVA's conversation JSON"})
    lazy_preprocess: bool = field(default=True, metadata={"help": "kept for upstream's lines; always lazy"})
    is_multimodal: bool = field(
        default=False, metadata={"help": "upstream's flag; without effect: a model with a vision tower is multimodal"}
    )
    image_folder: str | None = field(default=None, metadata={"help": "folder that the records' image paths start at"})
    image_aspect_ratio: str = field(default="square", metadata={"help": "square, pad, or anyres"})
    image_grid_pinpoints: str | None = field(
        default=None, metadata={"help": "with anyres: sizes that a picture may take, [[width, height], ...]"}
    )
    check_data: bool = field(default=True, metadata={"help": "check every record before the first step"})
    check_data_only: bool = field(default=False, metadata={"help": "check every record, report, and stop"})


@dataclass
class TrainingArguments(transformers.TrainingArguments):
    """transformers' own, and LLaVA's."""

    cache_dir: str | None = field(default=None, metadata={"help": "where hub downloads are kept"})
    report_to: list[str] = field(
        default_factory=lambda: ["none"], metadata={"help": "where the log goes: none, all, tensorboard, wandb, ..."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "must stay false: the collator needs all"})
    freeze_mm_mlp_adapter: bool = field(default=False, metadata={"help": "keep the projector as it is"})
    model_max_length: int = field(default=512, metadata={"help": "longest sequence, in tokens"})
    mm_projector_lr: float | None = field(default=None, metadata={"help": "learning rate of the projector alone"})
    group_by_modality_length: bool = field(
        default=False, metadata={"help": "batches of one modality and of like lengths"}
    )
    lora_enable: bool = field(default=False, metadata={"help": "train LoRA adapters instead of the language model"})
    lora_r: int = field(default=64, metadata={"help": "rank of the adapters"})
    lora_alpha: int = field(default=16, metadata={"help": "their scale, times rank"})
    lora_dropout: float = field(default=0.05, metadata={"help": "dropout in front of them"})
    lora_weight_path: str = field(default="", metadata={"help": "folder of an adapter to start from"})
    lora_bias: str = field(default="none", metadata={"help": "biases that learn: none, all or lora_only"})
    bits: int = field(default=16, metadata={"help": "16, or 8 or 4 to quantise the frozen weights (needs LoRA)"})
    double_quant: bool = field(default=True, metadata={"help": "with --bits 4: quantise the scales too"})
    quant_type: str = field(default="nf4", metadata={"help": "with --bits 4: nf4 or fp4"})
    mpt_attn_impl: str | None = field(default="triton", metadata={"help": "kept for upstream's lines; no effect"})


_RENAMED = {
    "--evaluation_strategy": "--eval_strategy",
    "--no_cuda": "--use_cpu",
    "--warmup_ratio": "--warmup_steps",  # which takes a fraction too
    "--per_gpu_train_batch_size": "--per_device_train_batch_size",
    "--per_gpu_eval_batch_size": "--per_device_eval_batch_size",
    "--push_to_hub_token": "--hub_token",
    "--push_to_hub_model_id": "--hub_model_id",
    "--torchdynamo": "--torch_compile_backend",
    "--xpu_backend": "--ddp_backend",
}
_RENAMED_OPTIMISERS = {"adamw_hf": "adamw_torch", "adamw_apex_fused": "adamw_torch_fused"}
_LOGGED_BY = {"tensorboard": "train", "wandb": "wandb"}  # what writes a log, and the extra that brings it
_MIXED_PRECISION = "--bf16 or --fp16 says all there is to say"
_TPU = "processes on TPUs are set up by what starts them"
_DROPPED = {
    "--overwrite_output_dir": "an output folder with checkpoints is resumed, any other is written to",
    "--save_safetensors": "weights are always saved as safetensors",
    "--logging_dir": "set TENSORBOARD_LOGGING_DIR",
    "--tokenizer": "the checkpoint's tokenizer is used",
    "--group_by_length": "use --train_sampling_strategy group_by_length",
    "--fsdp_transformer_layer_cls_to_wrap": "name the class in --fsdp_config, as transformer_layer_cls_to_wrap",
    "--fsdp_min_num_params": "give min_num_params in --fsdp_config",
    "--sharded_ddp": "use --deepspeed or --fsdp",
    "--adafactor": "use --optim adafactor",
    "--half_precision_backend": _MIXED_PRECISION,
    "--fp16_backend": _MIXED_PRECISION,
    "--fp16_opt_level": _MIXED_PRECISION,
    "--use_mps_device": "the device is found by itself",
    "--use_ipex": "there is no such optimisation any more",
    "--dispatch_batches": "give dispatch_batches in --accelerator_config",
    "--split_batches": "give split_batches in --accelerator_config",
    "--jit_mode_eval": "use --torch_compile",
    "--tpu_num_cores": _TPU,
    "--tpu_metrics_debug": _TPU,
    "--past_index": "models keep what they need from step to step themselves",
    "--use_legacy_prediction_loop": "there is one loop",
    "--include_inputs_for_metrics": "use --include_for_metrics inputs",
    "--include_tokens_per_second": "use --include_num_input_tokens_seen",
    "--push_to_hub_organization": "put it in --hub_model_id, as organisation/name",
    "--ray_scope": "there is no search for hyperparameters here",
    "--mp_parameters": "use --deepspeed, --fsdp or --parallelism_config",
}


def translate_flags(flags: Sequence[str]) -> tuple[list[str], list[str]]:
    """Launch lines written for older transformers -> today's flags, and a notice for each that changed.

    ``--warmup_ratio R`` becomes ``--warmup_steps R`` (a fraction is a ratio there).
    """
    kept: list[str] = []
    notices = []
    pairs = list(_with_values(flags))
    unheeded = _unheeded_warmup(dict(pairs))
    for name, values in pairs:
        if name == unheeded:
            notices.append(f"{name} is ignored, as ever beside the other flag of the warm-up")
        elif name == "--optim" and values and values[0] in _RENAMED_OPTIMISERS:
            notices.append(f"--optim {values[0]} is {_RENAMED_OPTIMISERS[values[0]]} now; translated")
            kept += [name, _RENAMED_OPTIMISERS[values[0]]]
        elif name == "--tf32" and not device_available("cuda"):
            notices.append("--tf32 is for CUDA devices, of which there is none; ignored")
        elif name in _DROPPED:
            notices.append(f"{name} is gone and was ignored: {_DROPPED[name]}")
        elif name in _RENAMED:
            notices.append(f"{name} is {_RENAMED[name]} now; translated")
            kept += [_RENAMED[name], *values]
        else:
            kept += [name, *values]
    return kept, notices


def _unheeded_warmup(given: Mapping[str, list[str]]) -> str | None:
    """Of ``--warmup_ratio`` and ``--warmup_steps``, where both are given, the one without effect: steps count, unless
    there are none."""
    if not {"--warmup_ratio", "--warmup_steps"} <= given.keys():
        return None
    return "--warmup_steps" if given["--warmup_steps"] == ["0"] else "--warmup_ratio"


def check_logs(report_to: Sequence[str]) -> None:
    """Raise OptionError where ``--report_to`` names what is not known, or not installed."""
    for name in report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise OptionError(
                f"--report_to has {name!r}; expected none, all, or some of {', '.join(INTEGRATION_TO_CALLBACK)}, set "
                "apart by spaces"
            )
        extra = _LOGGED_BY.get(name)
        if extra and importlib.util.find_spec(name) is None:
            raise OptionError(
                f"--report_to {name} needs the extra {extra!r}: pip install 'ada-llava[{extra}]'; --report_to none "
                "trains without a log"
            )


def _with_values(flags: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each ``--name`` with the words behind it; ``--name=value`` counts as two words."""
    words = [word for flag in flags for word in (flag.split("=", 1) if flag.startswith("--") else [flag])]
    starts = [place for place, word in enumerate(words) if place == 0 or word.startswith("--")]
    for start, stop in zip(starts, [*starts[1:], len(words)], strict=False):
        yield words[start], words[start + 1 : stop]
