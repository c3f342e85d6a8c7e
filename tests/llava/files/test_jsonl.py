"""JSON files of users: what cannot be read, or not written again, is an error that names file and line."""

import pytest

from llava.errors import DataError, OptionError
from llava.files.jsonl import RecordFile, lines_of, parse_json, read_json, read_records, read_text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "line 2 is not JSON"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ('{"text": "x", "text": "y"}', "line 2 holds 'text' twice in an object"),
        ('{"a": 1', "line 2 is not JSON"),
        ('"text"', "expected a JSON object"),
    ],
    ids=["deep", "long integer", "surrogate", "name twice", "cut", "no object"],
)
def test_line_that_cannot_be_used_is_named(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 0}\n' + content)
    with pytest.raises(DataError, match=message):
        read_records(path, "--file")


def test_whole_surrogate_pair_is_a_character():
    assert parse_json('"\\ud83d\\ude00"', "x") == "\N{GRINNING FACE}"


def test_byte_order_mark_and_line_ends_of_other_systems_are_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n{"a": 2}\r\n')
    assert read_records(path, "--file") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize("name", ["lost.json", "folder", "nu\0ll", "n" * 400])
def test_file_that_cannot_be_opened_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"--file .* cannot be read"):
        read_json(tmp_path / name, "--file")


def test_text_of_another_encoding_is_refused(tmp_path):
    (tmp_path / "a").write_bytes("é".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8"):
        read_text(tmp_path / "a", "--file")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.part"])
def test_record_file_of_another_encoding_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b'{"a": "\xe9"}\n')
    with pytest.raises(DataError, match="is not UTF-8"):
        RecordFile(tmp_path / "a.jsonl")


def test_lines_are_read_as_they_were_written(tmp_path):
    rows = [{"text": "a\u2028b\n\r\u0085", "n": 1}, {"text": ""}]
    (tmp_path / "a.jsonl").write_bytes(lines_of(rows).encode())
    assert read_records(tmp_path / "a.jsonl", "--file") == rows


def test_complete_file_takes_more_only_once_it_is_opened_again(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(lines_of([{"n": 0}]))
    file = RecordFile(path)
    with pytest.raises(OptionError, match=r"a\.jsonl is complete, and there is more to add to it; remove it"):
        file.append([{"n": 1}])
    assert path.read_text() == lines_of([{"n": 0}]) and not file.part.exists()
    file.reopen()
    assert not path.exists() and RecordFile(path).records == [{"n": 0}], "what was there survives a kill"
    file.append([{"n": 1}])
    file.finish(file.records)
    assert path.read_text() == lines_of([{"n": 0}, {"n": 1}]) and not file.part.exists()
