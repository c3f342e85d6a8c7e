"""Votes on the demo's answers, and the images that are kept with them."""

import errno
import hashlib
import json
import re
from io import FileIO
from pathlib import Path

import pytest

from llava.serve.web import vote_log
from llava.serve.web.conversation_state import WebChat
from llava.serve.web.vote_log import VoteLog, append_line


@pytest.fixture
def chat(image_file) -> WebChat:
    """An answered question about an image, and one without an answer."""
    chat = WebChat("some-llava", "vicuna_v1")
    chat.ask("What is this? ", [str(image_file)])
    chat.turns[-1].answer = "A test."
    chat.ask("And now?", [])
    return chat


def test_vote_log_writes_a_line_for_each_vote_and_each_image_once(chat, tmp_path) -> None:
    log = VoteLog(tmp_path / "votes")
    assert log.add("upvote", chat) and log.add("flag", chat)
    (file,) = (tmp_path / "votes").glob("*-conv.json")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d-conv\.json", file.name)
    first, second = map(json.loads, file.read_text().splitlines())
    assert (first["type"], second["type"]) == ("upvote", "flag")
    (kept,) = (tmp_path / "votes" / "serve_images").iterdir()
    assert first["state"]["turns"][0]["images"] == [kept.stem]
    assert hashlib.sha256(kept.read_bytes()).hexdigest() == kept.stem
    assert str(tmp_path) not in file.read_text(), "no paths"


def test_vote_log_full_refuses_votes(chat, tmp_path, monkeypatch) -> None:
    log = VoteLog(tmp_path)
    assert log.add("upvote", chat)
    (file,) = tmp_path.glob("*-conv.json")
    size = file.stat().st_size
    monkeypatch.setattr(vote_log, "MAX_LOG_BYTES", size + 5)
    assert not log.add("upvote", chat) and file.stat().st_size == size


@pytest.mark.parametrize("left", [b"", b'{"tstamp": 1, "st', b"\xff" * 200_000, b'{"a": 1}'])
@pytest.mark.parametrize("before", [b"", b'{"tstamp": 0}\n', b'{"tstamp": 0}\n' * 9000])
def test_append_line_removes_what_was_left_of_a_line(tmp_path, before, left) -> None:
    path = tmp_path / "log"
    path.write_bytes(before + left)
    append_line(path, b'{"tstamp": 2}\n')
    assert path.read_bytes() == before + b'{"tstamp": 2}\n'


@pytest.mark.parametrize("taken", [0, 1, 30])
def test_vote_that_a_full_disk_cuts_off_leaves_whole_lines(chat, tmp_path, monkeypatch, taken) -> None:
    log = VoteLog(tmp_path)
    assert log.add("upvote", chat)
    (file,) = tmp_path.glob("*-conv.json")
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, *mode, **options: FullDisk(path, taken))
        with pytest.raises(OSError, match="No space left"):
            log.add("downvote", chat)
    assert file.read_bytes() == before
    assert log.add("flag", chat)
    assert [json.loads(line)["type"] for line in file.read_text().splitlines()] == ["upvote", "flag"]


class FullDisk(FileIO):
    """A file on a disk that takes so many more bytes."""

    def __init__(self, path: Path, left: int) -> None:
        super().__init__(path, "a+")
        self.left = left

    def write(self, data) -> int:
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        count = super().write(bytes(data)[: self.left])
        self.left -= count
        return count
