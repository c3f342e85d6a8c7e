"""Measures how much of its language a LLaVA has kept, next to the language model that it was trained on.

    python -m playground.smol.language --model-path ada/checkpoints/smol --budgets 1 0.5

Both answer the 200 requests of ``chat.requests(test=True)``, text alone, greedily. Printed is a Markdown table: how
many answers start with the base's first sentence, and the loss, in nats a token, on the base's answers and on a text
that neither was trained on.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from llava.constants import IGNORE_INDEX
from llava.generation import SamplingParams
from llava.model.checkpoint.model_cache import cached_model
from llava.model.loaded_model import open_model
from llava.program import run_program
from llava.serve.chat_session import ChatSession
from playground.smol.base import NAME
from playground.smol.chat import answers, requests

ANSWER_TOKENS = 48
BLOCK = 512  # tokens of a text that are read at once


def first_sentence(text: str) -> str:
    """Return a text up to the first full stop, question or exclamation mark that a space or a line's end follows."""
    return re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0]


@torch.inference_mode()
def loss_of(model: Any, blocks: list[torch.Tensor], keywords: Mapping[str, Any]) -> float:
    """Return the mean loss over the tokens of ``blocks``, each (t,), of which the first is given; in nats a token.

    A model with a scheduler gets its latency token after the first one. Not a number where there is none.
    """
    lost, count = 0.0, 0
    for block in blocks:
        labels = block.clone()
        labels[0] = IGNORE_INDEX  # the prompt
        lost += model(input_ids=block[None], labels=labels[None], **keywords).loss.item() * (len(block) - 1)
        count += len(block) - 1
    return lost / count if count else math.nan


def blocks_of(tokenizer: Any, text: str) -> list[torch.Tensor]:
    """Cut a text into blocks of BLOCK tokens; what is left of it is not read."""
    ids = torch.tensor(tokenizer(text, add_special_tokens=False).input_ids, dtype=torch.long)
    return list(ids.split(BLOCK)[: max(1, len(ids) // BLOCK)]) if len(ids) > 1 else []


def rows(model_path: str, base: Path, budgets: list[float], text: str, limit: int | None) -> list[list[str]]:
    """Return the table's rows, the base first: name, first sentences as its, loss on its answers, and on the text."""
    asked = requests(test=True)[:limit]
    expected = [answer for answer, _ in answers(base, asked, ANSWER_TOKENS)]
    tokenizer = AutoTokenizer.from_pretrained(base)
    read = [blocks_of(tokenizer, "\n".join(expected)), blocks_of(tokenizer, text)]
    alone = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).eval()
    table = [["the language model alone", "", *(f"{loss_of(alone, blocks, {}):.3f}" for blocks in read)]]
    loaded = open_model({"model_path": model_path})
    sampling = SamplingParams(0.0, None, 1, max_new_tokens=ANSWER_TOKENS)
    parts = loaded.model, loaded.tokenizer, loaded.image_processor, loaded.template, sampling
    has_scheduler = getattr(loaded.model.config, "scheduler_type", None) is not None
    # Without a scheduler a budget is paid by image tokens, and here are none.
    settings = [{"latency_budget": budget} for budget in budgets] if has_scheduler else [{}]
    for setting in settings:
        name = f"budget {setting['latency_budget']:g}" if setting else "no budget"
        same = 0
        for request, answer in zip(tqdm(asked, desc=name), expected, strict=True):
            said = ChatSession(*parts, {**loaded.options, **setting}).ask(request, lambda piece: None).text
            same += first_sentence(said) == first_sentence(answer)
        losses = (f"{loss_of(loaded.model, blocks, setting):.3f}" for blocks in read)
        table.append([name, f"{same} of {len(asked)}", *losses])
    return table


def run(args: argparse.Namespace) -> None:
    """Print the table of what is kept."""
    made = rows(args.model_path, args.base, args.budgets, args.text.read_text(encoding="utf-8"), args.limit)
    print(f"|  | same first sentence | loss on its answers | loss on {args.text.name} |\n|---|---|---|---|")
    for row in made:
        print("| " + " | ".join(row) + " |")


def main() -> int:
    """Run the program with the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model-path", required=True, help="LLaVA to ask")
    parser.add_argument("--base", type=Path, default=cached_model(NAME), help="language model that it was trained on")
    parser.add_argument("--budgets", type=float, nargs="+", default=[1.0, 0.5], help="latency budgets to ask it under")
    parser.add_argument("--text", type=Path, default=Path("README.md"), help="text to read")
    parser.add_argument("--limit", type=int, help="number of requests; by default all 200")
    args = parser.parse_args()
    return run_program(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
