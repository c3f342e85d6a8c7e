"""Flags of the programs that answer question files, and what an answer file records of them."""

import json
import shutil

import pytest

from llava.errors import OptionError
from llava.eval.answering.settings import RunSettings, checkpoint_fingerprint, make_parser, recorded_settings
from llava.flags import from_flags

REQUIRED = ["--question-file", "q.jsonl", "--answers-file", "a.jsonl"]


def settings_of(*flags: str, **program) -> RunSettings:
    return from_flags(RunSettings, make_parser("model_vqa", None, **program).parse_args([*REQUIRED, *flags]))


def test_flags_fill_the_settings():
    settings = settings_of("--num-chunks", "3", "--chunk-idx", "1", "--top_p", "0.5", "--temperature", "0.9")
    assert (settings.num_chunks, settings.chunk_idx, settings.question_file.name) == (3, 1, "q.jsonl")
    assert (settings.sampling.temperature, settings.sampling.top_p) == (0.9, 0.5)


def test_default_answer_length_is_the_programs():
    assert settings_of().max_new_tokens == 1024
    assert settings_of(max_new_tokens=128).max_new_tokens == 128
    assert settings_of("--max_new_tokens", "5", max_new_tokens=128).max_new_tokens == 5


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"chunk_idx": 2, "num_chunks": 2}, "--chunk-idx is 2"),
        ({"chunk_idx": -1}, "--chunk-idx is -1"),
        ({"batch_size": 0}, "--batch-size 0"),
        ({"temperature": -1.0}, "--temperature is -1"),
    ],
)
def test_values_out_of_range_are_refused(values, named):
    with pytest.raises(OptionError, match=named):
        RunSettings(**values).check()


def test_recorded_settings_leave_out_paths_and_unset_options(tiny_checkpoint):
    options = {
        "answers_file": "a",
        "batch_size": 4,
        "seed": 7,
        "temperature": 0,
        "conv_mode": None,
        "all_rounds": False,
        "lang": "cn",
    }
    recorded = recorded_settings(options, str(tiny_checkpoint))
    assert recorded == {"checkpoint": checkpoint_fingerprint(tiny_checkpoint), "seed": 7, "lang": "cn"}


def test_fingerprint_changes_with_either_end_of_a_weight_file(checkpoint):
    before = checkpoint_fingerprint(checkpoint)
    path = checkpoint / "model.safetensors"
    content = bytearray(path.read_bytes())
    for position in (20, -1):
        content[position] ^= 1
        path.write_bytes(content)
        content[position] ^= 1
        assert checkpoint_fingerprint(checkpoint) != before
    path.write_bytes(content)
    assert checkpoint_fingerprint(checkpoint) == before


def test_fingerprint_of_an_adapter_is_of_what_it_was_trained_on_too(checkpoint, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    shutil.copy(checkpoint / "config.json", folder)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(checkpoint)}))
    for name in ("adapter_model.safetensors", "non_lora_trainables.bin"):
        (folder / name).write_bytes(b"weights")
    seen = {checkpoint_fingerprint(folder)}
    for file in (folder / "adapter_model.safetensors", folder / "non_lora_trainables.bin", checkpoint / "config.json"):
        file.write_bytes(file.read_bytes() + b" ")
        seen.add(checkpoint_fingerprint(folder))
    assert len(seen) == 4


def test_fingerprint_of_a_projector_is_of_its_base_too(checkpoint, tmp_path):
    shutil.copy(checkpoint / "config.json", tmp_path)
    (tmp_path / "mm_projector.bin").write_bytes(b"weights")
    alone = checkpoint_fingerprint(tmp_path)
    assert checkpoint_fingerprint(tmp_path, str(checkpoint)) != alone
    (tmp_path / "mm_projector.bin").write_bytes(b"others")
    assert checkpoint_fingerprint(tmp_path) != alone
