"""``eval_model`` of the programs that answer question files, called by a script with upstream's arguments."""

import argparse
import base64
import json
from types import SimpleNamespace

import pytest
from PIL import Image

from llava.errors import OptionError
from llava.eval import model_vqa, model_vqa_loader, model_vqa_mmbench, model_vqa_science
from llava.files.jsonl import lines_of, read_records

PROGRAMS = {
    "model_vqa": model_vqa,
    "model_vqa_loader": model_vqa_loader,
    "model_vqa_science": model_vqa_science,
    "model_vqa_mmbench": model_vqa_mmbench,
}
FORMS = {  # of what a script hands to upstream's eval_model
    "class": lambda fields: type("Args", (), fields)(),
    "namespace": lambda fields: SimpleNamespace(**fields),
    "parsed": lambda fields: argparse.Namespace(**fields),
}


@pytest.fixture
def files(tmp_path):
    """One question for each program, in its file's form: name -> file; the image next to them."""
    image = tmp_path / "0.png"
    Image.effect_noise((20, 30), 90).convert("RGB").save(image)
    plain, science, table = (tmp_path / name for name in ("q.jsonl", "science.json", "mmbench.tsv"))
    plain.write_text(lines_of([{"question_id": 0, "image": "0.png", "text": "w5"}]))
    science.write_text(json.dumps([{"id": "0", "image": "0.png", "conversations": [{"from": "human", "value": "w5"}]}]))
    encoded = base64.b64encode(image.read_bytes()).decode()
    table.write_text(f"index\tquestion\thint\tA\tB\tC\tD\timage\n0\tw5\t\tw6\tw7\t\t\t{encoded}\n")
    return dict(zip(PROGRAMS, (plain, plain, science, table), strict=True))


@pytest.fixture
def fields(tiny_checkpoint, files, tmp_path):
    """``fields(program, **more)``: upstream's attributes, texts for paths."""

    def make(program, **more):
        return {
            "model_path": str(tiny_checkpoint),
            "model_base": None,
            "image_folder": str(tmp_path),
            "question_file": str(files[program]),
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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("program", PROGRAMS)
def test_eval_model_answers_as_the_program_does(fields, tmp_path, program, form):
    own = fields(program, max_new_tokens=3)
    PROGRAMS[program].eval_model(FORMS[form](own))
    (row,) = read_records(tmp_path / "a.jsonl", "--answers-file")
    named = ("model_path", "image_folder", "question_file", "conv_mode", "temperature")
    flags = [f"--{name.replace('_', '-')}={own[name]}" for name in named]
    assert PROGRAMS[program].main([*flags, "--max_new_tokens=3", f"--answers-file={tmp_path / 'b.jsonl'}"]) == 0
    assert read_records(tmp_path / "b.jsonl", "--answers-file")[0]["text"] == row["text"]


def test_missing_attributes_have_the_programs_defaults(fields, tmp_path):
    """Of upstream's two programs on the same file, only one has a limit of 128 tokens."""
    model_vqa_loader.eval_model(SimpleNamespace(**fields("model_vqa_loader")))
    (row,) = read_records(tmp_path / "a.jsonl", "--answers-file")
    assert row["metadata"]["settings"]["max_new_tokens"] == 128


@pytest.mark.parametrize("missing", ["question_file", "answers_file"])
def test_eval_model_without_a_file_raises(fields, missing):
    given = fields("model_vqa")
    del given[missing]
    with pytest.raises(OptionError, match=f"the arguments have no {missing}"):
        model_vqa.eval_model(SimpleNamespace(**given))
