"""LoRA and QLoRA: adapters in the decoder's layers; the projector and what plug-ins add are trained in full."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PreTrainedModel, Trainer

from llava.errors import CheckpointError, OptionError
from llava.files.atomic_write import atomic_folder
from llava.model.checkpoint.folder import CheckpointFolder
from llava.model.checkpoint.lora import (
    CONFIG_FILE,
    OTHERS_FILE,
    PREFIX,
    WEIGHT_FILES,
    fill,
    require_peft,
    trained_in_full,
)
from llava.model.checkpoint.neuron_order import ORDER_FILE, base_order, order_of, write_order
from llava.model.checkpoint.weights_io import CheckpointWeights, read_json
from llava.model.placement import quantisation
from llava.train.arguments import TrainingArguments
from llava.train.runtime.saving import PROJECTOR_KEYS, caching, gathered_state
from llava.train.runtime.weight_states import find_all_linear_names

ADAPTER = "default"  # peft's name for the one adapter
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "Wqkv", "out_proj")


def check_flags(args: TrainingArguments) -> None:
    """Raise ``OptionError`` for flags of LoRA that are out of range or do not go together."""
    if args.bits not in (4, 8, 16, 32):
        raise OptionError(f"--bits is {args.bits}; expected 4, 8 or 16")
    if args.bits < 16 and not args.lora_enable:
        raise OptionError(f"--bits {args.bits} needs --lora_enable True: quantized weights cannot be trained")
    if args.quant_type not in ("nf4", "fp4"):
        raise OptionError(f"--quant_type is {args.quant_type!r}; expected nf4 or fp4")
    if args.lora_bias not in ("none", "all", "lora_only"):
        raise OptionError(f"--lora_bias is {args.lora_bias!r}; expected none, all or lora_only")
    if args.lora_weight_path and not args.lora_enable:
        raise OptionError("--lora_weight_path needs --lora_enable True")


def quantized_loading(args: TrainingArguments, kept: tuple[str, ...]) -> dict[str, Any]:
    """Return the keywords of ``from_pretrained`` for ``--bits``; ``kept``: modules that are not quantized."""
    if args.bits >= 16:
        return {}
    dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32
    config: BitsAndBytesConfig = quantisation(args.bits == 4, dtype, kept)
    if args.bits == 4:
        config.bnb_4bit_use_double_quant = args.double_quant
        config.bnb_4bit_quant_type = args.quant_type
    return {"quantization_config": config, "device_map": {"": args.device}}


def add_adapters(model: PreTrainedModel, args: TrainingArguments) -> None:
    """Add an adapter to every projection of the decoder's layers, in place; freeze all other weights.

    To be called before the vision tower is read, as its projections have the same names.
    """
    peft = require_peft()
    if args.bits < 16:
        peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=args.gradient_checkpointing)
    linear = find_all_linear_names(model)
    config = peft.LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        target_modules=[name for name in TARGETS if name in linear],
        lora_dropout=args.lora_dropout,
        bias=args.lora_bias,
        task_type="CAUSAL_LM",
    )
    model.add_adapter(config, adapter_name=ADAPTER)
    if args.bf16 or args.fp16:
        _leave_casts_to_autocast(model)


def start_from_adapter(model: PreTrainedModel, args: TrainingArguments) -> None:
    """Fill adapters, and what is trained in full, from ``--lora_weight_path``, where that is given.

    To be called once the model has its projector, which may be among them.
    """
    if args.lora_weight_path:
        load_adapter(model, Path(args.lora_weight_path))


def _leave_casts_to_autocast(model: PreTrainedModel) -> None:
    """Let the adapters take their inputs as they are: peft casts them to float32, and autocast casts them back."""
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False


def is_adapted(model: PreTrainedModel) -> bool:
    """Return whether the model, or a script's ``PeftModel`` around it, has adapters that are trained."""
    return ADAPTER in (getattr(model, "peft_config", None) or {})


def adapter_state(model: PreTrainedModel, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Select from the model's tensors those of the adapter, under peft's names."""
    found = require_peft().get_peft_model_state_dict(model, state_dict=state, adapter_name=ADAPTER)
    return {PREFIX + key.removeprefix(PREFIX): tensor.detach().cpu().contiguous() for key, tensor in found.items()}


def others_state(model: PreTrainedModel, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Select from the model's tensors those that were trained in full, and a frozen projector that its base lacks.

    peft saves the embedding tables with the adapter where tokens were added.
    """
    others, frozen = {}, {}
    for name, parameter in model.named_parameters():
        if "lora_" in name or ".base_layer." in name:
            continue
        if parameter.requires_grad:
            others[name.removeprefix(PREFIX)] = state[name].detach().cpu()
        elif any(key in name for key in PROJECTOR_KEYS):
            frozen[name.removeprefix(PREFIX)] = state[name].detach().cpu()
    held = _held_by_base(model, frozen)
    others |= {name: tensor for name, tensor in frozen.items() if name not in held}
    return {PREFIX + name: tensor for name, tensor in others.items()}


def _held_by_base(model: PreTrainedModel, tensors: dict[str, torch.Tensor]) -> set[str]:
    """Return the names of ``tensors`` that the model which the adapter was started on holds with the same values."""
    folder = getattr(model.config, "_name_or_path", None)
    if not tensors or not folder:
        return set()
    try:
        weights = CheckpointFolder.open(Path(folder)).weights()
    except CheckpointError:  # moved since the run began, or a name on the hub
        return set()
    stored = weights.read(tensors.keys() & set(weights))
    return {name for name, found in stored.items() if torch.equal(found.to(tensors[name].dtype), tensors[name])}


def save_adapter(trainer: Trainer, folder: str, state: dict[str, torch.Tensor] | None = None) -> None:
    """Save the adapter, what it needs in addition to its base, and ``config.json``.

    state: the model's tensors where the caller has them; else they are gathered, which every process must do.
    """
    from safetensors.torch import save_file

    if state is None:
        state = gathered_state(trainer)
    if not trainer.args.should_save:
        return
    model = trainer.model
    config = model.peft_config[ADAPTER]
    config.base_model_name_or_path = getattr(model.config, "_name_or_path", None)
    with atomic_folder(Path(folder)) as part, caching(model.config):
        config.save_pretrained(part)
        model.config.save_pretrained(part)
        _remove_quantization(part / "config.json")
        torch.save(others_state(model, state), part / OTHERS_FILE)
        save_file(adapter_state(model, state), part / WEIGHT_FILES[0], metadata={"format": "pt"})
        order = base_order(model)
        if order is not None:
            write_order(part / ORDER_FILE, order)


def _remove_quantization(path: Path) -> None:
    """Remove the base model's quantization from a config, as the adapter may be used with any form of the base."""
    fields = read_json(path)
    fields.pop("quantization_config", None)
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def load_adapter(model: PreTrainedModel, folder: Path) -> None:
    """Load into a model the adapter, and what is trained in full, that ``save_adapter`` wrote to ``folder``.

    Raises ``CheckpointError`` where there is none, or it is of another rank or model.
    """
    files = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not files:
        raise CheckpointError(
            f"{folder} holds no adapter ({CONFIG_FILE} and {WEIGHT_FILES[0]}), but --lora_enable is True; continue a "
            "run with the flags that it was started with, or name another --output_dir"
        )
    _check_order(model, folder)
    saved = CheckpointWeights(files[:1]).read(strip=PREFIX)
    own = adapter_state(model, model.state_dict())
    names = {key.removeprefix(PREFIX): _in_memory(key.removeprefix(PREFIX)) for key in own}
    if set(saved) != set(names):
        odd = sorted(set(saved) ^ set(names))
        raise CheckpointError(f"the adapter in {folder} is not that of this model and these flags: {odd[0]}")
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # of a PeftModel
    fill(inner, {names[name]: tensor for name, tensor in saved.items()}, str(files[0]))
    fill(inner, trained_in_full(folder), str(folder / OTHERS_FILE))


def _check_order(model: PreTrainedModel, folder: Path) -> None:
    """Raise CheckpointError where the adapter in ``folder`` was trained on neurons in another order."""
    stored, own = order_of(folder), base_order(model)
    if stored is None and own is None:
        return
    if stored is None or own is None or not torch.equal(stored, own):
        wanted = f"give --neuron_order {folder / ORDER_FILE}" if stored is not None else "leave --neuron_order out"
        raise CheckpointError(f"the adapter in {folder} was trained on neurons in another order; {wanted}")


def _in_memory(key: str) -> str:
    """Return a saved tensor's name in the model, where ``lora_A`` is followed by the adapter's name."""
    head, mark, tail = key.rpartition(".lora_")
    if not mark:
        return key
    letter, _, kind = tail.partition(".")
    return f"{head}{mark}{letter}.{ADAPTER}.{kind}"
