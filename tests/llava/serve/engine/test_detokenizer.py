"""Incremental detokenization, against the tokenizer's decoding of all tokens at once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from llava.serve.engine.detokenizer import (
    IncrementalDetokenizer,
    cut_at_stop,
    partial_stop_length,
    special_ids,
)

WORDS = ["▁the", "▁cat", "s", "▁", ".", "é", "▁END", "EN", "D"]


@pytest.fixture(scope="module")
def tokenizer():
    """Words with sentencepiece's spaces, and single bytes."""
    vocabulary = {"<unk>": 0, "</s>": 1, **{f"<0x{byte:02X}>": 2 + byte for byte in range(256)}}
    vocabulary |= {word: 258 + index for index, word in enumerate(WORDS)}
    bare = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True))
    bare.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="<unk>", eos_token="</s>")


def ids_of(*pieces: str | bytes) -> list[int]:
    out = []
    for piece in pieces:
        out += [2 + byte for byte in piece] if isinstance(piece, bytes) else [258 + WORDS.index(piece)]
    return out


def run(tokenizer, ids, stops=(), **options):
    stream = IncrementalDetokenizer(tokenizer, stops, **options)
    return stream, [stream.add(token_id) for token_id in ids]


def test_add_shows_spaces_and_no_half_character(tokenizer) -> None:
    ids = ids_of("▁the", "▁cat", "s", "🐈".encode(), "▁", "é", ".")
    stream, shown = run(tokenizer, ids)
    assert shown[:3] == ["the", "the cat", "the cats"]
    assert shown[3:6] == ["the cats"] * 3, "no half character is shown"
    assert shown[-1] == stream.finish() == "the cats🐈 é." == tokenizer.decode(ids)


PIECES = st.one_of(st.sampled_from(WORDS), st.sampled_from(["é", "🐈", "a", "日本"]).map(str.encode))


@settings(deadline=None, max_examples=150)
@given(pieces=st.lists(PIECES, min_size=1, max_size=25), ended=st.booleans())
def test_add_shows_beginnings_of_the_final_text(tokenizer, pieces, ended) -> None:
    ids = ids_of(*pieces) + ([1] if ended else [])
    stream, shown = run(tokenizer, ids)
    complete = tokenizer.decode(ids, skip_special_tokens=True)
    assert stream.finish() == complete == shown[-1]
    assert all(complete.startswith(text) for text in shown)


@settings(deadline=None, max_examples=150)
@given(
    pieces=st.lists(st.sampled_from(WORDS), min_size=1, max_size=20), stop=st.sampled_from(["END", " cats", "s.", " "])
)
def test_add_shows_no_part_of_a_stop_text(tokenizer, pieces, stop) -> None:
    ids = ids_of(*pieces)
    stream, shown = run(tokenizer, ids, [stop])
    complete = tokenizer.decode(ids)
    blank = len(complete) - len(complete.lstrip())
    ends = [at for at in range(len(complete)) if complete[at:].startswith(stop) and at + len(stop) > blank]
    expected = complete[: ends[0]] if ends else complete
    assert stream.finish() == expected and stream.stopped == bool(ends)
    assert all(expected.startswith(text) for text in shown)


@pytest.mark.parametrize(
    ("stop", "expected"), [(" ", " the"), ("\n", " the cats."), ("  ", " the cats."), (" the", ""), ("s", " the cat")]
)
def test_add_spaces_before_an_answer_do_not_end_it(tokenizer, stop, expected) -> None:
    stream, shown = run(tokenizer, ids_of("▁", "▁the", "▁cat", "s", "."), [stop])
    assert stream.finish() == expected and shown[-1] == expected
    assert stream.stopped == (expected != " the cats.")


@pytest.mark.parametrize(
    ("min_tokens", "expected"),
    [(0, "the "), (3, "the "), (4, "the END cats "), (6, "the END cats "), (7, "the END cats END")],
)
def test_add_stop_text_within_the_minimum_does_not_end_the_answer(tokenizer, min_tokens, expected) -> None:
    ids = ids_of("▁the", "▁", "EN", "D", "▁cat", "s", "▁END")  # a stop text ends with the 4th and the 7th token
    stream, shown = run(tokenizer, ids, ["END"], min_tokens=min_tokens)
    assert stream.finish() == shown[-1] == expected and stream.stopped == (min_tokens < 7)


def test_special_ids_are_those_of_texts_that_decoding_leaves_out(tokenizer) -> None:
    assert special_ids(tokenizer, ["</s>", "END", "the", ""]) == [1]
    stream, _ = run(tokenizer, [*ids_of("▁the"), 1], stop_ids=[1])
    assert stream.stopped and stream.finish() == "the"
    stream, _ = run(tokenizer, [*ids_of("▁the"), 1, *ids_of("▁cat")], stop_ids=[1], min_tokens=2)
    assert not stream.stopped and stream.finish() == "the cat"


def test_partial_stop_length_is_the_longest_possible_beginning() -> None:
    assert partial_stop_length("the EN", ["END", "N"]) == 2 and partial_stop_length("the E.", ["END"]) == 0
    assert partial_stop_length("E", ["END"]) == 1 and partial_stop_length("", ["END"]) == 0
    assert cut_at_stop("a END b", ["b", "END"]) == ("a ", True) and cut_at_stop("a", []) == ("a", False)
