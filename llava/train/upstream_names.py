"""Gathers what scripts import from upstream's ``llava.train.train``: each name is a thin layer over our own parts."""

from __future__ import annotations

from typing import Any

import transformers

from llava import conversation as conversation_lib
from llava.constants import (
    DEFAULT_IM_END_TOKEN,
    DEFAULT_IM_START_TOKEN,
    DEFAULT_IMAGE_TOKEN,
    IGNORE_INDEX,
    IMAGE_TOKEN_INDEX,
)
from llava.mm_utils import tokenizer_image_token
from llava.protocols import Tokenizer
from llava.train.data.collator import DataCollatorForSupervisedDataset
from llava.train.data.dataset import LazySupervisedDataset
from llava.train.data.upstream_preprocess import (
    preprocess,
    preprocess_llama_2,
    preprocess_mpt,
    preprocess_multimodal,
    preprocess_plain,
    preprocess_v1,
)
from llava.train.llava_trainer import LLaVATrainer
from llava.train.model_setup import smart_tokenizer_and_embedding_resize
from llava.train.runtime.saving import gathered_state, save_model, save_projector
from llava.train.runtime.weight_states import (
    find_all_linear_names,
    get_mm_adapter_state_maybe_zero_3,
    get_peft_state_maybe_zero_3,
    get_peft_state_non_lora_maybe_zero_3,
    maybe_zero_3,
)

__all__ = [
    "DEFAULT_IMAGE_TOKEN",
    "DEFAULT_IM_END_TOKEN",
    "DEFAULT_IM_START_TOKEN",
    "IGNORE_INDEX",
    "IMAGE_TOKEN_INDEX",
    "conversation_lib",
    "find_all_linear_names",
    "get_mm_adapter_state_maybe_zero_3",
    "get_peft_state_maybe_zero_3",
    "get_peft_state_non_lora_maybe_zero_3",
    "make_supervised_data_module",
    "maybe_zero_3",
    "preprocess",
    "preprocess_llama_2",
    "preprocess_mpt",
    "preprocess_multimodal",
    "preprocess_plain",
    "preprocess_v1",
    "safe_save_model_for_hf_trainer",
    "smart_tokenizer_and_embedding_resize",
    "tokenizer_image_token",
]


def make_supervised_data_module(tokenizer: Tokenizer, data_args: object) -> dict[str, Any]:
    """Make the data set and the collator, as keywords of the trainer.

    data_args: ``DataArguments``, to which a script adds ``image_processor`` and ``mm_use_im_start_end``, as upstream.
    """
    return {
        "train_dataset": LazySupervisedDataset(getattr(data_args, "data_path", ""), tokenizer, data_args),
        "eval_dataset": None,
        "data_collator": DataCollatorForSupervisedDataset(tokenizer),
    }


def safe_save_model_for_hf_trainer(trainer: transformers.Trainer, output_dir: str) -> None:
    """Save what a run has trained, as ``LLaVATrainer.save_result`` does; of another trainer, the full model.

    With ``tune_mm_mlp_adapter`` among such a trainer's arguments it is the projector. A class of a script's own that
    replaces ``_save`` is saved by that, as upstream.
    """
    if type(trainer)._save not in (LLaVATrainer._save, transformers.Trainer._save):
        state = gathered_state(trainer)
        if trainer.args.should_save:
            trainer._save(output_dir, state_dict=state)
    elif isinstance(trainer, LLaVATrainer):
        trainer.save_result(output_dir)
    elif getattr(trainer.args, "tune_mm_mlp_adapter", False):
        save_projector(trainer, output_dir)
    else:
        save_model(trainer, output_dir)
