"""``eval_model`` of the programs that answer question files, called by a script with upstream's arguments."""

import base64
import json
from types import SimpleNamespace

import pytest
from PIL import Image

from llava.errors import OptionError
from llava.eval import model_vqa, model_vqa_loader, model_vqa_mmbench, model_vqa_qbench, model_vqa_science
from llava.files.jsonl import lines_of, read_records

PROGRAMS = {
    "model_vqa": model_vqa,
    "model_vqa_loader": model_vqa_loader,
    "model_vqa_science": model_vqa_science,
    "model_vqa_mmbench": model_vqa_mmbench,
    "model_vqa_qbench": model_vqa_qbench,
}


@pytest.fixture
def files(tmp_path):
    """One question for each program, in its file's form: name -> file; the image next to them."""
    image = tmp_path / "0.png"
    Image.effect_noise((20, 30), 90).convert("RGB").save(image)
    names = ("q.jsonl", "science.json", "mmbench.tsv", "qbench.json")
    plain, science, table, rated = (tmp_path / name for name in names)
    plain.write_text(lines_of([{"question_id": 0, "image": "0.png", "text": "w5"}]))
    science.write_text(json.dumps([{"id": "0", "image": "0.png", "conversations": [{"from": "human", "value": "w5"}]}]))
    encoded = base64.b64encode(image.read_bytes()).decode()
    table.write_text(f"index\tquestion\thint\tA\tB\tC\tD\timage\n0\tw5\t\tw6\tw7\t\t\t{encoded}\n")
    rated.write_text(json.dumps([{"img_path": "0.png", "question": "w5", "candidates": ["w6", "w7"]}]))
    return dict(zip(PROGRAMS, (plain, plain, science, table, rated), strict=True))


def question_attribute(program):
    return "questions_file" if program == "model_vqa_qbench" else "question_file"


@pytest.fixture
def fields(tiny_checkpoint, files, tmp_path):
    """``fields(program, **more)``: upstream's attributes, texts for paths."""

    def make(program, **more):
        return {
            "model_path": str(tiny_checkpoint),
            "model_base": None,
            "image_folder": str(tmp_path),
            question_attribute(program): str(files[program]),
            "answers_file": str(tmp_path / "a.jsonl"),
            "conv_mode": "vicuna_v1",
            "num_chunks": 1,
            "chunk_idx": 0,
            "temperature": 0,
            "top_p": None,
            "num_beams": 1,
            **more,
        }

    return make


@pytest.mark.parametrize("program", PROGRAMS)
def test_eval_model_answers_as_the_program_does(fields, tmp_path, program, arguments_of):
    own = fields(program, max_new_tokens=3)
    PROGRAMS[program].eval_model(arguments_of(own))
    (row,) = read_records(tmp_path / "a.jsonl", "--answers-file")
    named = ("model_path", "image_folder", question_attribute(program), "conv_mode", "temperature")
    flags = [f"--{name.replace('_', '-')}={own[name]}" for name in named]
    assert PROGRAMS[program].main([*flags, "--max_new_tokens=3", f"--answers-file={tmp_path / 'b.jsonl'}"]) == 0
    answer = "response" if program == "model_vqa_qbench" else "text"
    assert read_records(tmp_path / "b.jsonl", "--answers-file")[0][answer] == row[answer]


def test_missing_attributes_have_the_programs_defaults(fields, tmp_path):
    """Of upstream's two programs on the same file, only one has a limit of 128 tokens."""
    model_vqa_loader.eval_model(SimpleNamespace(**fields("model_vqa_loader")))
    (row,) = read_records(tmp_path / "a.jsonl", "--answers-file")
    assert row["metadata"]["settings"]["max_new_tokens"] == 128


def test_eval_model_of_qbench_takes_exactly_upstreams_attributes(fields, tmp_path):
    names = ("model_path", "model_base", "image_folder", "questions_file", "answers_file")
    given = {name: value for name, value in fields("model_vqa_qbench").items() if name in names}
    model_vqa_qbench.eval_model(SimpleNamespace(**given, conv_mode="llava_v1", lang="zh"))
    (row,) = read_records(tmp_path / "a.jsonl", "--answers-file")
    assert row["candidates"] == ["w6", "w7"] and isinstance(row["response"], str)


@pytest.mark.parametrize("missing", ["question_file", "answers_file"])
def test_eval_model_without_a_file_raises(fields, missing):
    given = fields("model_vqa")
    del given[missing]
    with pytest.raises(OptionError, match=f"the arguments have no {missing}"):
        model_vqa.eval_model(SimpleNamespace(**given))
