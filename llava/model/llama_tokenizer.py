"""Llama's tokenizer as LLaVA was trained with it: sentencepiece itself, on ``tokenizer.model``.

transformers 5 turns such a file into a BPE of its own, which reads runs of spaces, and a space behind an image tag,
otherwise than sentencepiece does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoTokenizer
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from llava.errors import CheckpointError

MODEL_FILE = "tokenizer.model"
SPACE = "▁"
_LLAMA_CLASSES = ("LlamaTokenizer", "LlamaTokenizerFast", None)


class LlamaTokenizer(SentencePieceBackend):
    """Sentencepiece pieces, ``<s>`` in front.

    legacy: text behind a special token starts with a space of its own, as the text's first piece always does.
    """

    vocab_files_names = {"vocab_file": MODEL_FILE}  # noqa: RUF012 - the name and form that transformers reads
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
    padding_side = "left"

    def __init__(
        self,
        vocab_file: str,
        unk_token: str = "<unk>",
        bos_token: str = "<s>",
        eos_token: str = "</s>",
        pad_token: str | None = None,
        add_bos_token: bool = True,
        add_eos_token: bool = False,
        legacy: bool = True,
        **kwargs: Any,
    ) -> None:
        self.add_bos_token, self.add_eos_token = add_bos_token, add_eos_token
        super().__init__(
            vocab_file=vocab_file,
            unk_token=unk_token,
            bos_token=bos_token,
            eos_token=eos_token,
            pad_token=pad_token,
            add_bos_token=add_bos_token,
            add_eos_token=add_eos_token,
            legacy=legacy,
            **kwargs,
        )

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """Text -> pieces, without ``<s>``."""
        if self.legacy or not text:
            return super().tokenize(text, **kwargs)
        pieces = super().tokenize(SPACE + text.replace(SPACE, " "), **kwargs)
        if len(pieces) > 1 and pieces[0] == SPACE and pieces[1] in self.all_special_tokens:
            return pieces[1:]  # the space was meant for text
        return pieces

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """``<s>`` in front of, and ``</s>`` behind, each sequence, as the two flags say."""
        first = [self.bos_token_id] if self.add_bos_token else []
        last = [self.eos_token_id] if self.add_eos_token else []
        ids = [*first, *token_ids_0, *last]
        return ids if token_ids_1 is None else [*ids, *first, *token_ids_1, *last]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Pieces, special tokens among them, -> text without the space that encoding put in front."""
        if tokens and tokens[0].startswith(SPACE):
            tokens = [tokens[0][len(SPACE) :], *tokens[1:]]
        text, pieces = "", []
        for token in tokens:
            if token not in self.all_special_tokens and token not in self.added_tokens_encoder:
                pieces.append(token)
                continue
            space = " " if self.legacy and pieces else ""
            text += space + self.sp_model.decode(pieces) + token
            pieces = []
        return text + self.sp_model.decode(pieces)


def load_tokenizer(folder: str | Path, **kwargs: Any) -> Any:
    """The tokenizer of a checkpoint folder (or hub name); keywords as ``AutoTokenizer.from_pretrained`` takes them.

    Raises CheckpointError where there is none.
    """
    path = Path(folder) if Path(folder).is_dir() else _fetched(str(folder), kwargs.get("cache_dir"))
    if (path / MODEL_FILE).is_file() and _class_name(path) in _LLAMA_CLASSES:
        return LlamaTokenizer.from_pretrained(path, **kwargs)
    if not any((path / name).is_file() for name in ("tokenizer.json", MODEL_FILE, "vocab.json")):
        raise CheckpointError(f"there is no tokenizer in {folder}: expected tokenizer.json or {MODEL_FILE}")
    try:
        return AutoTokenizer.from_pretrained(path, **kwargs)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read the tokenizer of {folder}: {error}") from error


def _fetched(name: str, cache_dir: str | None) -> Path:
    """A folder with the tokenizer's files of a hub name."""
    files = ["tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "config.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=files, cache_dir=cache_dir))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name!r} is neither a folder nor a model that can be fetched: {error}") from error


def _class_name(folder: Path) -> str | None:
    """The tokenizer class that a folder's files name."""
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        return None
    try:
        return json.loads(settings.read_text(encoding="utf-8")).get("tokenizer_class")
    except ValueError as error:
        raise CheckpointError(f"cannot read {settings} as JSON: {error}") from error
