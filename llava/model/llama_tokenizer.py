"""Tokenizes as LLaVA was trained: with sentencepiece itself, on Llama's ``tokenizer.model``.

transformers 5 converts such a file to BPE, which reads runs of spaces, and a space after an image tag, otherwise than
sentencepiece does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from transformers import AutoTokenizer
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from llava.errors import CheckpointError
from llava.model.checkpoint.byte_order_mark import read_without_marks

MODEL_FILE = "tokenizer.model"
SPACE = "▁"
_LLAMA_CLASSES = ("LlamaTokenizer", "LlamaTokenizerFast", None)


class LlamaTokenizer(SentencePieceBackend):  # type: ignore[misc]
    """Sentencepiece's pieces, after ``<s>``.

    legacy: text after a special token starts with an added space, as the text's first piece always does.
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
        """Split text into pieces, without ``<s>``."""
        if self.legacy or not text:
            legacy_pieces: list[str] = super().tokenize(text, **kwargs)
            return legacy_pieces
        pieces: list[str] = super().tokenize(SPACE + text.replace(SPACE, " "), **kwargs)
        if len(pieces) > 1 and pieces[0] == SPACE and pieces[1] in self.all_special_tokens:
            return pieces[1:]  # the space was meant for text
        return pieces

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Put ``<s>`` before and ``</s>`` after each sequence, as ``add_bos_token`` and ``add_eos_token`` say."""
        first = [self.bos_token_id] if self.add_bos_token else []
        last = [self.eos_token_id] if self.add_eos_token else []
        ids: list[int] = [*first, *token_ids_0, *last]
        return ids if token_ids_1 is None else [*ids, *first, *token_ids_1, *last]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join pieces, special tokens among them, into text without the space that encoding added at its start."""
        if tokens and tokens[0].startswith(SPACE):
            tokens = [tokens[0][len(SPACE) :], *tokens[1:]]
        text, pieces = "", list[str]()
        for token in tokens:
            if token not in self.all_special_tokens and token not in self.added_tokens_encoder:
                pieces.append(token)
                continue
            space = " " if self.legacy and pieces else ""
            text += space + str(self.sp_model.decode(pieces)) + token
            pieces = []
        return text + str(self.sp_model.decode(pieces))


def load_tokenizer(folder: str | Path, **kwargs: Any) -> Any:
    """Load the tokenizer of a checkpoint folder or hub name; keywords are ``AutoTokenizer.from_pretrained``'s.

    Raises CheckpointError where there is none.
    """
    path = Path(folder) if Path(folder).is_dir() else _fetched(str(folder), kwargs.get("cache_dir"))
    tokenizer = read_without_marks(path, lambda readable: _load(readable, folder, **kwargs))
    tokenizer.name_or_path = str(path)
    # Of texts beyond the length that training cut samples at, which generation does not; who reads on checks lengths.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    if getattr(tokenizer, "vocab_file", None):
        tokenizer.vocab_file = str(path / Path(tokenizer.vocab_file).name)
    return tokenizer


def _load(path: Path, folder: str | Path, **kwargs: Any) -> Any:
    if (path / MODEL_FILE).is_file() and _class_name(path) in _LLAMA_CLASSES:
        return LlamaTokenizer.from_pretrained(path, **kwargs)
    if not any((path / name).is_file() for name in ("tokenizer.json", MODEL_FILE, "vocab.json")):
        raise CheckpointError(f"there is no tokenizer in {folder}: expected tokenizer.json or {MODEL_FILE}")
    try:
        return AutoTokenizer.from_pretrained(path, **kwargs)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read the tokenizer of {folder}: {error}") from error


def _fetched(name: str, cache_dir: str | None) -> Path:
    """Download the tokenizer's files of a hub name, and return their folder."""
    files = ["tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "config.json"]
    try:
        return Path(snapshot_download(name, allow_patterns=files, cache_dir=cache_dir))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name!r} is neither a folder nor a model that can be fetched: {error}") from error


def _class_name(folder: Path) -> str | None:
    """Return the tokenizer class that a folder's tokenizer_config.json names."""
    settings = folder / "tokenizer_config.json"
    if not settings.is_file():
        return None
    try:
        name: str | None = json.loads(settings.read_text(encoding="utf-8")).get("tokenizer_class")
        return name
    except ValueError as error:
        raise CheckpointError(f"cannot read {settings} as JSON: {error}") from error
