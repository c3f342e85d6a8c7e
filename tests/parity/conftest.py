"""Fixtures of the tests that compare with the references' recorded answers."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from llava.model.llama_tokenizer import load_tokenizer

TOKENIZER_SHA256 = "dadfd56d766715c61d2ef780a525ab43b8e6da4de6865bda3d95fdef5e134055"


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``tokenizer_folder(legacy=True)``: the references' tokenizer, as LLaVA's checkpoints hold theirs."""
    package = pytest.importorskip("mistral_common", reason="its sentencepiece model is the references' tokenizer")
    source = Path(package.__file__).parent / "data" / "tokenizer.model.v1"
    if hashlib.sha256(source.read_bytes()).hexdigest() != TOKENIZER_SHA256:
        pytest.skip("mistral-common's tokenizer.model.v1 is not the one that the recorded answers were made with")

    def make(legacy: bool = True) -> Path:
        folder = tmp_path_factory.mktemp("tokenizer")
        shutil.copy(source, folder / "tokenizer.model")
        settings = {
            "tokenizer_class": "LlamaTokenizer",
            "legacy": legacy,
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<unk>",
            "padding_side": "right",
            "model_max_length": 2048,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        return folder

    return make


@pytest.fixture(scope="session")
def llama_tokenizer(tokenizer_folder: Callable[..., Path]) -> Callable[..., Any]:
    """``llama_tokenizer(legacy=True)`` gives the ids of the references' slow tokenizer."""
    return lambda legacy=True: load_tokenizer(tokenizer_folder(legacy))


_SHAPES = {"a": (80, 120), "b": (120, 80), "c": (336, 336), "d": (333, 500)}  # height, width


@pytest.fixture(scope="session")
def golden_images() -> dict[str, dict[str, Image.Image]]:
    """image.json's images: kind -> name -> image."""
    random = np.random.RandomState(0)
    noise = {name: random.randint(0, 256, size=(*shape, 3)).astype(np.uint8) for name, shape in _SHAPES.items()}
    smooth = {}
    for name, (height, width) in _SHAPES.items():
        y, x = np.mgrid[0:height, 0:width]
        channels = ((x * 255) // max(width - 1, 1), (y * 255) // max(height - 1, 1), ((x // 8 + y // 8) % 2) * 255)
        smooth[name] = np.stack(channels, axis=-1).astype(np.uint8)
    return {
        kind: {name: Image.fromarray(array) for name, array in arrays.items()}
        for kind, arrays in (("noise", noise), ("smooth", smooth))
    }
