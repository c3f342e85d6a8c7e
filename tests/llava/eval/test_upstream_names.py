"""The names that research code imports from upstream's evaluation modules, with upstream's parameters."""

import importlib
import inspect
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from llava.errors import ImageError, OptionError
from llava.eval import model_vqa_mmbench, run_llava

CHUNKS = {"split_list": "lst n", "get_chunk": "lst n k", "eval_model": "args"}
REVIEW = {"get_eval": "content max_tokens", "parse_score": "review"}
SCIENCE = {"get_args": "", "convert_caps": "results", "get_pred_idx": "prediction choices options"}
NAMES = {
    "eval_gpt_review": REVIEW,
    "eval_gpt_review_bench": REVIEW,
    "eval_gpt_review_visual": REVIEW,
    "eval_pope": {"eval_pope": "answers label_file"},
    "eval_science_qa": SCIENCE,
    "eval_science_qa_gpt4": SCIENCE,
    "eval_science_qa_gpt4_requery": SCIENCE,
    "eval_textvqa": {"get_args": "", "prompt_processor": "prompt", "eval_single": "annotation_file result_file"},
    "generate_webpage_data_from_table": {"read_jsonl": "path [key]", "trim_hanging_lines": "s n"},
    "m4c_evaluator": {
        "EvalAIAnswerProcessor.__init__": "self *args **kwargs",
        "EvalAIAnswerProcessor.word_tokenize": "self word",
        "EvalAIAnswerProcessor.process_punctuation": "self in_text",
        "EvalAIAnswerProcessor.process_digit_article": "self in_text",
        "EvalAIAnswerProcessor.__call__": "self item",
        "TextVQAAccuracyEvaluator._compute_answer_scores": "self raw_answers",
        "TextVQAAccuracyEvaluator.eval_pred_list": "self pred_list",
        "STVQAAccuracyEvaluator.eval_pred_list": "self pred_list",
        "STVQAANLSEvaluator.get_anls": "self s1 s2",
        "STVQAANLSEvaluator.eval_pred_list": "self pred_list",
        "TextCapsBleu4Evaluator.__init__": "self",
        "TextCapsBleu4Evaluator.eval_pred_list": "self pred_list",
    },
    "model_qa": {"eval_model": "model_name questions_file answers_file"},
    "model_vqa": CHUNKS,
    "model_vqa_loader": {
        **CHUNKS,
        "CustomDataset.__init__": "self questions image_folder tokenizer image_processor model_config",
        "CustomDataset.__getitem__": "self index",
        "collate_fn": "batch",
        "create_data_loader": "questions image_folder tokenizer image_processor model_config "
        "[batch_size] [num_workers]",
    },
    "model_vqa_mmbench": {**CHUNKS, "is_none": "value", "get_options": "row options"},
    "model_vqa_science": CHUNKS,
    "qa_baseline_gpt35": {"get_answer": "question_id question max_tokens"},
    "run_llava": {
        "image_parser": "args", "load_image": "image_file", "load_images": "image_files", "eval_model": "args"
    },
    "summarize_gpt_review": {"parse_args": ""},
}  # fmt: skip
MARKS = {inspect.Parameter.VAR_POSITIONAL: "*{}", inspect.Parameter.VAR_KEYWORD: "**{}"}


def parameters(function) -> str:
    names = []
    for name, parameter in inspect.signature(function).parameters.items():
        optional = parameter.default is not inspect.Parameter.empty
        names.append(MARKS.get(parameter.kind, "[{}]" if optional else "{}").format(name))
    return " ".join(names)


@pytest.mark.parametrize("module", NAMES)
def test_names_have_upstreams_parameters(module):
    found = {}
    for name in NAMES[module]:
        value = importlib.import_module(f"llava.eval.{module}")
        for part in name.split("."):
            value = getattr(value, part)
        found[name] = parameters(value)
    assert found == NAMES[module]


def test_options_end_at_the_first_missing_one():
    row = {"A": "x", "B": "y", "C": float("nan"), "D": "z"}
    assert model_vqa_mmbench.get_options(row, model_vqa_mmbench.all_options) == ["x", "y"]
    assert model_vqa_mmbench.get_options(row, ["D", "A"]) == ["z", "x"]


def test_images_of_run_llava(image_file):
    names = run_llava.image_parser(SimpleNamespace(image_file=f"{image_file};{image_file}", sep=";"))
    images = run_llava.load_images([*names, image_file.read_bytes()])
    assert {(image.size, image.mode, image.tobytes()) for image in images} == {
        (images[0].size, "RGB", images[0].tobytes())
    }
    with pytest.raises(ImageError):
        run_llava.load_image(b"no image")


def test_16_bit_image_given_as_bytes_is_scaled_as_its_file_is(tmp_path):
    Image.fromarray(np.full((4, 4), 257 * 90, dtype=np.uint16)).save(tmp_path / "a.png")
    expected = Image.new("RGB", (4, 4), (90, 90, 90)).tobytes()
    for source in (str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()):
        assert run_llava.load_image(source).tobytes() == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_new_tokens": 0}, "max-new-tokens is 0"),
        ({"num_beams": 0}, "num_beams 0"),
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_p": 0.0}, "top_p is 0"),
    ],
)
def test_sampling_out_of_range_is_no_default(image_file, given, message):
    with pytest.raises(OptionError, match=message):
        run_llava.eval_model(SimpleNamespace(image_file=str(image_file), query="q", **given))


@pytest.mark.parametrize("turn", [False, True])
def test_photograph_on_its_side_is_named(monkeypatch, caplog, tmp_path, turn):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    Image.new("RGB", (8, 4)).save(tmp_path / "b.jpg")

    def no_model(options):
        raise OptionError("there is none")

    monkeypatch.setattr(run_llava, "open_model", no_model)
    names = f"{tmp_path / 'a.jpg'},{tmp_path / 'b.jpg'}"
    with pytest.raises(OptionError, match="there is none"):
        run_llava.eval_model(SimpleNamespace(image_file=names, query="q", exif_orientation=turn))
    (line,) = [entry.getMessage() for entry in caplog.records]
    assert "a.jpg" in line and ("turned upright" if turn else "as it is stored") in line


@pytest.mark.parametrize("names", ["", "a.png,", ",", " "])
def test_empty_image_name_is_refused(names):
    with pytest.raises(OptionError, match="--image-file is "):
        run_llava.image_parser(SimpleNamespace(image_file=names, sep=","))
