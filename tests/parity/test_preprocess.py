"""Conversations become the ids and labels that upstream's training code gave; batches and lengths likewise."""

import json
from types import SimpleNamespace

import pytest

from llava.conversation import SeparatorStyle, conv_templates
from llava.errors import DataError
from llava.train.collator import DataCollatorForSupervisedDataset
from llava.train.lazy_dataset import LazySupervisedDataset
from llava.train.preprocessing import preprocess, preprocess_multimodal, template_of


@pytest.fixture(scope="module")
def recorded(golden):
    return json.loads((golden / "preprocess.json").read_text())


@pytest.fixture(scope="module")
def runs(recorded, llama_tokenizer):
    """(run, tokenizer) of every template but ChatML's, on upstream's tokenizer."""
    found = []
    for run in recorded["runs"]:
        options = run["tokenizer"]
        style = conv_templates.get(run["version"], conv_templates["v1"]).sep_style
        if "kind" in options or style is SeparatorStyle.MPT:
            continue
        tokenizer = llama_tokenizer(legacy=options["legacy"])
        tokenizer.add_bos_token, tokenizer.model_max_length = options["add_bos_token"], options["model_max_length"]
        found.append((run, tokenizer))
    return found


def messages_of(conversation):
    return [{"from": who, "value": text} for who, text in conversation["messages"]]


def prepared(conversation, run, tokenizer, name="?"):
    """Messages as the model sees them, and their ids and labels."""
    template, sources = template_of(run["version"]), [messages_of(conversation)]
    if conversation["has_image"]:
        options = SimpleNamespace(is_multimodal=True, mm_use_im_start_end=run["mm_use_im_start_end"])
        sources = preprocess_multimodal(sources, options, template)
    return sources[0], preprocess(sources, tokenizer, conversation["has_image"], template, name)


def refused(case):
    """The reference fails, or prints a warning and trains on nothing: an error here."""
    return "error" in case or case["mismatch_warning"]


def test_ids_and_labels(recorded, runs):
    checked = 0
    for run, tokenizer in runs:
        for name, case in run["cases"].items():
            if refused(case):
                continue
            where = f"{run['version']} {run['tokenizer']} {name}"
            messages, sample = prepared(recorded["conversations"][name], run, tokenizer, name)
            assert sample["input_ids"][0].tolist() == case["input_ids"], where
            assert sample["labels"][0].tolist() == case["labels"], where
            if "after_preprocess_multimodal" in case:
                assert [message["value"] for message in messages] == case["after_preprocess_multimodal"], where
            checked += 1
    assert checked > 200


def test_what_upstream_masks_whole_is_an_error(recorded, runs):
    kinds = set()
    for run, tokenizer in runs:
        for name, case in run["cases"].items():
            if not refused(case):
                continue
            with pytest.raises(DataError, match=f"sample {name}: "):
                prepared(recorded["conversations"][name], run, tokenizer, name)
            kinds.add(name)
    assert {"empty_answer_text", "eos_inside_answer_text", "human_last", "odd_role_order"} <= kinds


def test_preprocessing_leaves_its_input_alone(recorded, runs):
    _, tokenizer = runs[0]
    sources = [messages_of(recorded["conversations"]["image_tag_at_end"])]
    before = json.dumps(sources)
    options = SimpleNamespace(is_multimodal=True, mm_use_im_start_end=True)
    preprocess(preprocess_multimodal(sources, options), tokenizer, True)
    assert json.dumps(sources) == before


def test_batch(recorded, llama_tokenizer):
    expected = recorded["collator"]
    tokenizer = llama_tokenizer(legacy=expected["legacy"])
    tokenizer.model_max_length = expected["model_max_length"]
    run = {"version": expected["version"], "mm_use_im_start_end": False}
    samples = []
    for name in expected["order"]:
        _, sample = prepared(recorded["conversations"][name], run, tokenizer)
        samples.append({key: value[0] for key, value in sample.items()})
    batch = DataCollatorForSupervisedDataset(tokenizer)(samples)
    for key in ("input_ids", "labels", "attention_mask"):
        assert batch[key].tolist() == expected[key], key


def test_lengths(recorded, tmp_path):
    expected = recorded["dataset_lengths"]
    records = []
    for name in expected["order"]:
        conversation = recorded["conversations"][name]
        image = {"image": f"{name}.png"} if conversation["has_image"] else {}
        records.append({"id": name, **image, "conversations": messages_of(conversation)})
    (tmp_path / "data.json").write_text(json.dumps(records))
    dataset = LazySupervisedDataset(str(tmp_path / "data.json"), None, None, template_of("v1"))
    assert dataset.lengths == expected["lengths"]
    assert dataset.modality_lengths == expected["modality_lengths"]
