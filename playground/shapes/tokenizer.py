"""Trains a small byte-level BPE tokenizer for the shapes world, with Llama's special tokens.

Any text can be encoded. The phrases that every prompt repeats (LLaVA's system prompt, the answer instructions) are
single tokens: a small model should not spend a third of its prompt on them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from llava.conversation import conv_templates
from playground.shapes.questions import EXPLAIN, LETTER, SHORT

VOCABULARY = 640
MAX_LENGTH = 1024


def train_tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE: ids 0, 1, 2 are <unk>, <s>, </s>; <s> is put first, as LLaVA's tokenizer does."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    phrases = [conv_templates["v1"].system, SHORT, LETTER, EXPLAIN]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(phrases),
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(phrase, normalized=False) for phrase in phrases])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<unk>",
        model_max_length=MAX_LENGTH,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def conversation_texts(path: Path) -> Iterator[str]:
    """Yield every message of a LLaVA training file, as it stands after a role."""
    for record in json.loads(path.read_text(encoding="utf-8-sig")):
        for message in record["conversations"]:
            role = "USER" if message["from"] == "human" else "ASSISTANT"
            yield f" {role}: {message['value'].replace('<image>', '')}"


def main() -> None:
    """Run ``python -m playground.shapes.tokenizer --data FILE --out DIR``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="conversations.json of a shapes world")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tokenizer's files")
    args = parser.parse_args()
    train_tokenizer(conversation_texts(args.data)).save_pretrained(args.out)


if __name__ == "__main__":
    main()
