"""The names that research code imports from upstream's evaluation modules, with upstream's parameters."""

import importlib
import inspect
from types import SimpleNamespace

import pytest

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


@pytest.mark.parametrize("names", ["", "a.png,", ",", " "])
def test_empty_image_name_is_refused(names):
    with pytest.raises(OptionError, match="--image-file is "):
        run_llava.image_parser(SimpleNamespace(image_file=names, sep=","))
