"""Flags of the training program: LLaVA's three dataclasses, and the translation of older launch lines."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import transformers
from transformers.hf_argparser import HfArg
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.utils import is_torch_tf32_available

from llava.errors import OptionError
from llava.utils import device_available


@dataclass
class ModelArguments:
    """Flags that choose the model, and which parts of it are trained."""

    model_name_or_path: str = HfArg(default="", help="checkpoint folder or hub name to start from")
    version: str = HfArg(default="v0", help="conversation template: v1, plain, llava_llama_2, ...")
    freeze_backbone: bool = HfArg(default=False, help="do not train the language model")
    tune_mm_mlp_adapter: bool = HfArg(default=False, help="stage 1: train the projector alone")
    vision_tower: str | None = HfArg(
        default=None, help="vision tower, CLIP or SigLIP: folder or hub name (default: the checkpoint's)"
    )
    mm_vision_select_layer: int = HfArg(
        default=-1, help="layer of the vision tower whose hidden states are the image features; -1 is the last"
    )
    pretrain_mm_mlp_adapter: str | None = HfArg(
        default=None, help="file mm_projector.bin of stage 1, to start the projector from"
    )
    mm_projector_type: str = HfArg(
        default="linear", help="architecture of the projector: linear, mlpNx_gelu (N linear layers) or identity"
    )
    mm_use_im_start_end: bool = HfArg(
        default=False, help="add a token before and after each image, and train their embeddings"
    )
    mm_use_im_patch_token: bool = HfArg(default=True, help="add a token for image patches to the tokenizer")
    mm_patch_merge_type: str = HfArg(
        default="flat", help="how the features of anyres tiles are merged: flat, spatial or spatial_unpad"
    )
    mm_vision_select_feature: str = HfArg(
        default="patch", help="features taken from the vision tower: patch, or cls_patch (the class token too)"
    )
    attn_implementation: str | None = HfArg(
        default=None, help="attention implementation: eager, sdpa, flash_attention_2 or flex_attention"
    )


@dataclass
class DataArguments:
    """Flags that choose the data, and how images are prepared."""

    data_path: str = HfArg(default="", help="training file: LLaVA's conversation JSON")
    lazy_preprocess: bool = HfArg(
        default=True, help="upstream's flag; without effect: samples are always made when they are needed"
    )
    is_multimodal: bool = HfArg(
        default=False, help="upstream's flag; without effect: a model with a vision tower is multimodal"
    )
    image_folder: str | None = HfArg(default=None, help="folder that the records' image paths are relative to")
    image_aspect_ratio: str = HfArg(
        default="square",
        help="how an image becomes square: square (crop), pad, anyres (an overview and a grid of tiles), or "
        "anyres_max_N (as anyres, with the features of about N tiles at most)",
    )
    image_grid_pinpoints: str | None = HfArg(
        default=None,
        help="with anyres: sizes in pixels that an image may take, [[width, height], ...], or in tiles, "
        "(1x1),...,(6x6)",
    )
    exif_orientation: bool = HfArg(default=False, help="turn images upright as their EXIF orientation says")
    check_data: bool = HfArg(default=True, help="check every record before the first step")
    check_data_only: bool = HfArg(default=False, help="check every record, report the faults, and stop")


@dataclass
class TrainingArguments(transformers.TrainingArguments):  # type: ignore[misc]
    """Flags of the training run: transformers' own, and LLaVA's."""

    cache_dir: str | None = HfArg(default=None, help="folder for downloads from the hub")
    report_to: list[str] = HfArg(  # noqa: RUF009 - it makes a field
        default_factory=lambda: ["none"], help="programs that receive the log: none, all, tensorboard, wandb, ..."
    )
    remove_unused_columns: bool = HfArg(default=False, help="must stay False: the collator needs all columns")
    freeze_mm_mlp_adapter: bool = HfArg(default=False, help="do not train the projector")
    model_max_length: int = HfArg(
        default=512, help="longest sample, in tokens, image positions included; the rest is not trained on"
    )
    mm_projector_lr: float | None = HfArg(
        default=None, help="learning rate of the projector (default: --learning_rate)"
    )
    group_by_modality_length: bool = HfArg(
        default=False, help="make batches of one modality (with or without images) and of similar length"
    )
    lora_enable: bool = HfArg(default=False, help="train LoRA adapters instead of the language model")
    lora_r: int = HfArg(default=64, help="rank of the LoRA adapters")
    lora_alpha: int = HfArg(default=16, help="scale of the LoRA adapters, multiplied by their rank")
    lora_dropout: float = HfArg(default=0.05, help="dropout of the LoRA adapters' input, in [0, 1)")
    lora_weight_path: str = HfArg(default="", help="folder of a LoRA adapter to start from")
    lora_bias: str = HfArg(default="none", help="biases to train with LoRA: none, all or lora_only")
    bits: int = HfArg(default=16, help="bits of the frozen weights: 16, or quantized to 8 or 4 (needs --lora_enable)")
    double_quant: bool = HfArg(default=True, help="with --bits 4: quantize the scales too")
    quant_type: str = HfArg(default="nf4", help="with --bits 4: data type of the weights, nf4 or fp4")
    compile_layers: bool = HfArg(
        default=False, help="compile each decoder layer: the first steps take longer, the others less"
    )
    mpt_attn_impl: str | None = HfArg(default="triton", help="upstream's flag; without effect")


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
_RENAMED_OPTIMIZERS = {"adamw_hf": "adamw_torch", "adamw_apex_fused": "adamw_torch_fused"}
_EXTRA_OF_LOGGER = {"tensorboard": "train", "wandb": "wandb"}  # the extra that installs a logger
_MIXED_PRECISION = "--bf16 or --fp16 is all that is needed"
_TPU = "processes on TPUs are configured by their launcher"
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
    "--use_mps_device": "the device is found automatically",
    "--use_ipex": "this optimization no longer exists",
    "--dispatch_batches": "give dispatch_batches in --accelerator_config",
    "--split_batches": "give split_batches in --accelerator_config",
    "--jit_mode_eval": "use --torch_compile",
    "--tpu_num_cores": _TPU,
    "--tpu_metrics_debug": _TPU,
    "--past_index": "models keep what they need from step to step themselves",
    "--use_legacy_prediction_loop": "there is one loop",
    "--include_inputs_for_metrics": "use --include_for_metrics inputs",
    "--include_tokens_per_second": "use --include_num_input_tokens_seen",
    "--push_to_hub_organization": "put it in --hub_model_id, as organization/name",
    "--ray_scope": "there is no search for hyperparameters here",
    "--mp_parameters": "use --deepspeed, --fsdp or --parallelism_config",
}


def translate_flags(flags: Sequence[str]) -> tuple[list[str], list[str]]:
    """Translate the flags of older transformers into today's; return them, and a notice for each change.

    ``--warmup_ratio R`` becomes ``--warmup_steps R`` (which takes a fraction of all steps, too).
    """
    kept: list[str] = []
    notices = []
    pairs = list(_with_values(flags))
    ignored = _ignored_warmup(dict(pairs))
    for name, values in pairs:
        if name == ignored:
            notices.append(f"{name} is ignored, as always next to the other flag of the warm-up")
        elif name == "--optim" and values and values[0] in _RENAMED_OPTIMIZERS:
            notices.append(f"--optim {values[0]} is {_RENAMED_OPTIMIZERS[values[0]]} now; translated")
            kept += [name, _RENAMED_OPTIMIZERS[values[0]]]
        elif name == "--tf32" and (reason := _no_tf32(dict(pairs))):
            notices.append(f"--tf32 is for CUDA devices of the Ampere generation and later, and {reason}; ignored")
        elif name in _DROPPED:
            notices.append(f"{name} is obsolete and was ignored: {_DROPPED[name]}")
        elif name in _RENAMED:
            notices.append(f"{name} is {_RENAMED[name]} now; translated")
            kept += [_RENAMED[name], *values]
        else:
            kept += [name, *values]
    return kept, notices


def _no_tf32(given: Mapping[str, list[str]]) -> str:
    """Say why ``--tf32`` has no effect; nothing where it has one. Transformers would refuse the flag."""
    if any(given.get(name, ["False"])[:1] not in (["False"], ["false"], ["0"]) for name in ("--use_cpu", "--no_cuda")):
        return "this run is on a CPU"
    if not device_available("cuda"):
        return "there is none"
    return "" if is_torch_tf32_available() else "this one is older"


def _ignored_warmup(given: Mapping[str, list[str]]) -> str | None:
    """Return the one of ``--warmup_ratio`` and ``--warmup_steps`` that has no effect where both are given.

    The steps count, unless they are 0.
    """
    if not {"--warmup_ratio", "--warmup_steps"} <= given.keys():
        return None
    return "--warmup_steps" if given["--warmup_steps"] == ["0"] else "--warmup_ratio"


def check_unsupported(args: TrainingArguments) -> None:
    """Raise ``OptionError`` for flags of transformers that would do harm here, or nothing, without a word."""
    resumes = "a run resumes from the last complete checkpoint of its --output_dir by itself"
    for name, fine, reason in (
        ("resume_from_checkpoint", (None, "", "True", True), resumes),
        ("eval_strategy", ("no",), "training has no evaluation data; llava.eval evaluates its result"),
        ("remove_unused_columns", (False,), "images would be removed from the samples"),
    ):
        value = getattr(args, name)
        if value not in fine:
            raise OptionError(f"--{name} is {getattr(value, 'value', value)}: {reason}; leave the flag out")


def check_devices(args: TrainingArguments) -> None:
    """Raise ``OptionError`` where one process sees several GPUs, over which transformers would split its batches."""
    if args.n_gpu > 1:
        raise OptionError(
            f"this is one process, and it sees {args.n_gpu} GPUs; expected one. Start a process for each GPU (torchrun "
            "--nproc-per-node gpu llava/train/train.py ..., in the recipes LAUNCHER=torchrun), or let it see one: "
            "CUDA_VISIBLE_DEVICES=0"
        )


def check_logs(report_to: Sequence[str]) -> None:
    """Raise ``OptionError`` where ``--report_to`` names a logger that is not known, or not installed."""
    for name in report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            raise OptionError(
                f"--report_to has {name!r}; expected none, all, or some of {', '.join(INTEGRATION_TO_CALLBACK)}, set "
                "apart by spaces"
            )
        extra = _EXTRA_OF_LOGGER.get(name)
        if extra and importlib.util.find_spec(name) is None:
            raise OptionError(
                f"--report_to {name} needs the extra {extra!r}: pip install 'ada-llava[{extra}]'; --report_to none "
                "trains without a log"
            )


def _with_values(flags: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield each ``--name`` with the words after it; ``--name=value`` counts as two words."""
    words = [word for flag in flags for word in (flag.split("=", 1) if flag.startswith("--") else [flag])]
    starts = [index for index, word in enumerate(words) if index == 0 or word.startswith("--")]
    for start, stop in zip(starts, [*starts[1:], len(words)], strict=False):
        yield words[start], words[start + 1 : stop]
