"""Answers a JSON-lines file of questions that take short answers: ``question_id``, ``image``, ``text``.

The same as model_vqa, except that an answer ends at 128 tokens unless --max_new_tokens says otherwise.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from llava.conversation import conv_templates
from llava.errors import OptionError
from llava.eval.answering.questions import image_opener, question_text
from llava.eval.answering.settings import make_parser, with_defaults
from llava.eval.model_vqa import answer_file, get_chunk, split_list
from llava.files.fields import required_field
from llava.files.jsonl import Record
from llava.generation import with_image_tags
from llava.mm_utils import process_images, tokenizer_image_token
from llava.program import run_program
from llava.protocols import ImageProcessor, Tokenizer

__all__ = ["CustomDataset", "collate_fn", "create_data_loader", "eval_model", "get_chunk", "main", "split_list"]

Row = tuple[torch.Tensor, torch.Tensor, tuple[int, int]]
MAX_NEW_TOKENS = 128
TEMPLATE = "llava_v1"  # where the checkpoint states none, as upstream


class CustomDataset(Dataset[Row]):
    """Questions as a model's inputs: token ids (t,), pixels of the image (3, S, S) or (n, 3, S, S), its size (w, h).

    model_config: its ``conv_mode`` names the conversation template, else ``TEMPLATE``. For research code; the programs
    here make batches of similar length themselves.
    """

    def __init__(
        self,
        questions: Sequence[Record],
        image_folder: str | Path,
        tokenizer: Tokenizer,
        image_processor: ImageProcessor,
        model_config: Any,
    ) -> None:
        self.questions, self.image_folder = questions, image_folder
        self.tokenizer, self.image_processor, self.model_config = tokenizer, image_processor, model_config

    def __getitem__(self, index: int) -> Row:
        """Return one question's inputs. Raises ``LlavaError`` for a question or an image that cannot be used."""
        line, where = self.questions[index], f"question {index + 1}"
        text = question_text(required_field(line, "text", str, where), True, where)
        conversation = conv_templates[getattr(self.model_config, "conv_mode", None) or TEMPLATE].copy()
        asked = with_image_tags(SimpleNamespace(config=self.model_config), text, 1)
        conversation.append_message(conversation.roles[0], asked)
        conversation.append_message(conversation.roles[1], None)
        image = image_opener(Path(self.image_folder), required_field(line, "image", str, where), where)()
        pixels = process_images([image], self.image_processor, self.model_config)[0]
        ids = tokenizer_image_token(conversation.get_prompt(), self.tokenizer, return_tensors="pt")
        return ids, pixels, image.size

    def __len__(self) -> int:
        """Return how many questions there are."""
        return len(self.questions)


def collate_fn(batch: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, tuple[tuple[int, int], ...]]:
    """Stack rows of equal shapes: ids (B, t), pixels (B, ...), and the images' sizes."""
    ids, pixels, sizes = zip(*batch, strict=True)
    return torch.stack(ids), torch.stack(pixels), sizes


def create_data_loader(
    questions: Sequence[Record],
    image_folder: str | Path,
    tokenizer: Tokenizer,
    image_processor: ImageProcessor,
    model_config: Any,
    batch_size: int = 1,
    num_workers: int = 4,
) -> DataLoader[Row]:
    """Return a loader of the questions in order, one a batch. Raises ``OptionError`` for another ``batch_size``."""
    if batch_size != 1:
        raise OptionError(f"batch_size is {batch_size}; prompts differ in length, so that this loader takes 1 alone")
    dataset = CustomDataset(questions, image_folder, tokenizer, image_processor, model_config)
    return DataLoader(dataset, batch_size=batch_size, num_workers=num_workers, shuffle=False, collate_fn=collate_fn)


def _parser() -> argparse.ArgumentParser:
    return make_parser("model_vqa_loader", __doc__, max_new_tokens=MAX_NEW_TOKENS)


def eval_model(args: object) -> None:
    """Answer the questions of ``args.question_file`` as ``model_vqa.eval_model`` does, with shorter answers."""
    answer_file(with_defaults(_parser(), args))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code."""
    args = _parser().parse_args(arguments)
    return run_program(lambda: answer_file(args))


if __name__ == "__main__":
    raise SystemExit(main())
