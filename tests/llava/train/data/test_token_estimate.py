"""Bounds of token counts are none too low, with tokenizers of a word, a character and a piece a token."""

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.conversation import conv_templates
from llava.errors import DataError
from llava.model.llama_tokenizer import load_tokenizer
from llava.train.data.preprocessing import preprocess
from llava.train.data.token_estimate import TokenEstimate

MODES = ["v1", "plain", "llava_llama_2", "llava_v0", "chatml_direct", "v1_mmtag"]
WORDS = ["the", "image shows", "street,\n", "A.\nB.", "  ", "été", "中文字", "3.14", "\t", "\n\n", "!!??", "</s>"]
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=60),
    st.text(st.characters(codec="ascii"), max_size=200),
    st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join),
)


@pytest.fixture(scope="session")
def pieces(tmp_path_factory):
    """Llama's tokenizer, whose file another package brings."""
    common = pytest.importorskip("mistral_common")
    folder = tmp_path_factory.mktemp("pieces")
    shutil.copy(Path(common.__file__).parent / "data" / "tokenizer.model.v1", folder / "tokenizer.model")
    settings = {"tokenizer_class": "LlamaTokenizer", "legacy": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return load_tokenizer(folder, model_max_length=1 << 40)


@pytest.fixture(scope="session")
def bundled(root):
    return load_tokenizer(root / "ada" / "checkpoints" / "shapes-base", model_max_length=1 << 40)


@pytest.fixture(scope="session", params=["bundled", "pieces"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=40, deadline=None)
@given(question=TEXTS, answer=TEXTS, rounds=st.integers(1, 4))
def test_messages_that_fit_have_no_more_tokens(tokenizer, mode, question, answer, rounds):
    template = conv_templates[mode]
    texts = [f"<image>\n{question}", f"w5 {answer}"] + [question, f"w5 {answer}"] * (rounds - 1)
    turns = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]
    try:
        tokens = len(preprocess([turns], tokenizer, True, template)["input_ids"][0])
    except DataError:  # a text that the template cannot express
        return
    assert not TokenEstimate(tokenizer, template).fits(texts, tokens - 1)


def test_words_of_a_long_text_are_a_close_bound(tokenizer):
    texts = ["<image>\nWhat does the image show?", "The image shows a man who rides his bicycle. " * 200]
    turns = [{"from": role, "value": text} for role, text in zip(("human", "gpt"), texts, strict=True)]
    tokens = len(preprocess([turns], tokenizer, True, conv_templates["v1"])["input_ids"][0])
    assert TokenEstimate(tokenizer, conv_templates["v1"]).fits(texts, int(1.2 * tokens) + 100)
