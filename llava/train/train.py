"""The training program: stage 1 (``--tune_mm_mlp_adapter True``), stage 2, and what plug-ins add.

Run by path (``deepspeed llava/train/train.py ...``) or as a module (``python -m llava.train.train ...``).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any

import torch
import transformers

from llava.conversation import SeparatorStyle, conv_templates
from llava.errors import OptionError
from llava.model.checkpoint.zero3 import size
from llava.plugins import hooks, merged
from llava.program import run_program
from llava.train.arguments import (
    DataArguments,
    ModelArguments,
    TrainingArguments,
    check_devices,
    check_logs,
    check_unsupported,
    translate_flags,
)
from llava.train.data.collator import DataCollatorForSupervisedDataset
from llava.train.data.dataset import LazySupervisedDataset, SampleSettings
from llava.train.data.preprocessing import mode_of, template_of
from llava.train.data.validate import check_data
from llava.train.llava_trainer import LLaVATrainer
from llava.train.lora import start_from_adapter
from llava.train.model_setup import (
    add_vision,
    compile_layers,
    make_model,
    make_tokenizer,
    set_trainable_parameters,
)
from llava.train.policy import Policies
from llava.train.preflight import image_counter, length_check
from llava.train.runtime.distributed import destroy_distributed, init_distributed
from llava.train.runtime.malloc_trim import MallocTrimCallback
from llava.train.runtime.resume import last_checkpoint
from llava.train.runtime.same_run import check_same_run, note_run
from llava.train.runtime.trainable_parameters import trainable_by_part
from llava.train.upstream_names import *  # noqa: F403 - names that others import from here
from llava.train.vision_settings import Arguments, VisionSettings

log = logging.getLogger("llava.train")

local_rank: int | None = None  # this process's number on its machine, -1 or 0 in the first; ``train`` sets it
IS_TOKENIZER_GREATER_THAN_0_14 = True  # upstream's name; transformers 5 needs a later release of tokenizers


def train(attn_implementation: str | None = None, flags: Sequence[str] | None = None) -> None:
    """Parse the flags (``sys.argv`` by default), check the data, train or resume, and save.

    attn_implementation: used unless the flag ``--attn_implementation`` is given.
    """
    arguments = parse_arguments(sys.argv[1:] if flags is None else flags)
    model_args, data_args, training_args = (
        arguments[kind] for kind in (ModelArguments, DataArguments, TrainingArguments)
    )
    global local_rank
    local_rank = training_args.local_rank
    model_args.attn_implementation = model_args.attn_implementation or attn_implementation
    check_logs(training_args.report_to)
    check_unsupported(training_args)
    if not data_args.check_data_only:
        check_devices(training_args)
    if model_args.version not in conv_templates:
        log.warning("--version is %r, which names no template; vicuna_v1 is used, as upstream", model_args.version)
    init_distributed(training_args)
    if (data_args.check_data or data_args.check_data_only) and training_args.process_index == 0:
        lengths = length_check(arguments)
        count = check_data(data_args.data_path, data_args.image_folder, template_of(model_args.version), lengths)
        log.info("%d records, none with a fault", count)
    if data_args.check_data_only:
        return
    checkpoint = last_checkpoint(training_args)
    if checkpoint is not None:
        check_same_run(arguments)
    trainer = make_trainer(arguments)
    if checkpoint is None:
        note_run(arguments)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.labels.require_any()
    trainer.save_state()
    trainer.save_result(training_args.output_dir)
    destroy_distributed()


def make_trainer(arguments: Arguments) -> LLaVATrainer:
    """Make the trainer with the model, tokenizer and data that the flags name, ready for the first step."""
    model_args, data_args, training_args = (
        arguments[kind] for kind in (ModelArguments, DataArguments, TrainingArguments)
    )
    template = template_of(model_args.version)
    transformers.set_seed(training_args.seed)
    model = make_model(arguments)
    policy = Policies([part for part in hooks().training_policy(model=model, arguments=arguments) if part is not None])
    tokenizer = make_tokenizer(model, arguments)
    vision = add_vision(model, tokenizer, arguments)
    start_from_adapter(model, training_args)
    set_trainable_parameters(model, arguments)
    policy.freeze(model)
    if training_args.compile_layers:
        compile_layers(model)
    if template.sep_style is not SeparatorStyle.PLAIN:  # which is stage 1's; nothing is answered with it
        model.config.conv_mode = mode_of(model_args.version)
    _log_trainable_parameters(model)
    samples, counter = _sample_settings(model, vision, data_args), image_counter(arguments)
    return LLaVATrainer(
        model=model,
        args=training_args,
        processing_class=tokenizer,
        train_dataset=LazySupervisedDataset(
            data_args.data_path, tokenizer, samples, template, None if counter is None else counter.max_image_tokens
        ),
        data_collator=DataCollatorForSupervisedDataset(tokenizer),
        projector_only=model_args.tune_mm_mlp_adapter,
        learning_rates=_learning_rates(arguments),
        policy=policy,
        callbacks=[MallocTrimCallback()] if training_args.use_cpu else [],
    )


def _sample_settings(
    model: transformers.PreTrainedModel, vision: VisionSettings | None, data_args: DataArguments
) -> SampleSettings:
    if vision is None:
        return SampleSettings(data_args.image_folder)
    return SampleSettings(
        data_args.image_folder,
        model.get_vision_tower().image_processor,
        vision.image_aspect_ratio,
        vision.image_grid_pinpoints,
        vision.mm_use_im_start_end,
        data_args.exif_orientation,
    )


def _log_trainable_parameters(model: transformers.PreTrainedModel) -> None:
    parts = trainable_by_part(model)
    listed = ", ".join(f"{part} {count / 1e6:.3g}" for part, count in parts.items())
    total = sum(size(p) for p in model.parameters())
    log.info("%.3g of %.3g million parameters learn: %s", sum(parts.values()) / 1e6, total / 1e6, listed)


def _learning_rates(arguments: Arguments) -> dict[str, float]:
    rate = arguments[TrainingArguments].mm_projector_lr
    return {**({} if rate is None else {"mm_projector": rate}), **merged(hooks().learning_rates(arguments=arguments))}


def parse_arguments(flags: Sequence[str]) -> dict[type, Any]:
    """Fill every dataclass, those of plug-ins included, from the flags; flags of older releases are translated.

    Raises ``OptionError`` for an unknown flag, and for a value that transformers refuses.
    """
    kinds = [ModelArguments, DataArguments, TrainingArguments]
    kinds += [kind for part in hooks().training_dataclasses() for kind in part]
    translated, notices = translate_flags(flags)
    parser = transformers.HfArgumentParser(kinds, allow_abbrev=False)
    try:
        *instances, unknown = parser.parse_args_into_dataclasses(translated, True, look_for_args_file=False)
    except (ValueError, ImportError) as error:
        raise OptionError(f"the flags cannot be used: {error}") from error
    if unknown:
        raise OptionError(f"unknown: {' '.join(unknown)}; --help lists all flags")
    for notice in notices:
        log.warning(notice)
    return {type(instance): instance for instance in instances}


def rank0_print(*args: object) -> None:
    """Print in the first process of a machine only, once ``train`` has set ``local_rank``."""
    if local_rank in (0, -1):
        print(*args)


def main(attn_implementation: str | None = None) -> int:
    """Run the program; return its exit code: 2 for a user error, which is printed without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    torch.set_float32_matmul_precision("high")
    return run_program(lambda: train(attn_implementation))


if __name__ == "__main__":
    raise SystemExit(main())
