"""Frames of an answer stream, against splitting the complete stream at once."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.serve.protocol.framing import FrameReader, iter_chunks
from llava.serve.protocol.schemas import chunk


@given(st.lists(st.sampled_from([b"a", b"bc", b"\0"])).map(b"".join), st.lists(st.integers(0, 60), max_size=8))
def test_frame_reader_data_in_pieces_gives_the_same_frames(data: bytes, cuts: list[int]) -> None:
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    reader = FrameReader()
    frames = [frame for start, end in itertools.pairwise(bounds) for frame in reader.feed(data[start:end])]
    assert [*frames, reader.remainder] == data.split(b"\0")


def test_frame_reader_frame_without_end_is_the_remainder() -> None:
    reader = FrameReader()
    assert reader.feed(b"one\0tw") == [b"one"]
    assert reader.remainder == b"tw"
    assert reader.feed(b"o\0") == [b"two"]
    assert reader.remainder == b""


def test_iter_chunks_stream_gives_its_objects() -> None:
    stream = chunk("a") + chunk("a b", finish_reason="stop")
    objects = list(iter_chunks([stream[:5], stream[5:]]))
    assert objects == [{"text": "a", "error_code": 0}, {"text": "a b", "error_code": 0, "finish_reason": "stop"}]


def test_iter_chunks_object_without_zero_byte_counts() -> None:
    refusal = json.dumps({"text": "full", "error_code": 1}).encode()
    assert list(iter_chunks([refusal])) == [{"text": "full", "error_code": 1}]


@pytest.mark.parametrize("data", [b"<html>\0", b'{"text": "a'])
def test_iter_chunks_not_json_raises(data: bytes) -> None:
    with pytest.raises(json.JSONDecodeError):
        list(iter_chunks([data]))


@pytest.mark.parametrize("data", [b"[]\0", b"1\0"])
def test_iter_chunks_not_an_object_raises(data: bytes) -> None:
    with pytest.raises(ValueError, match="expected a JSON object"):
        list(iter_chunks([data]))
