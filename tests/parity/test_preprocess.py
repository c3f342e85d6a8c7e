"""Conversations become the ids and labels that upstream's training code gave; so do batches and lengths."""

import json
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer

from llava import conversation as conversation_module
from llava.conversation import SeparatorStyle, conv_templates
from llava.errors import DataError
from llava.train import train as upstream
from llava.train.data.collator import DataCollatorForSupervisedDataset
from llava.train.data.dataset import LazySupervisedDataset
from llava.train.data.preprocessing import preprocess, preprocess_multimodal, template_of


@pytest.fixture(scope="module")
def recorded(golden):
    return json.loads((golden / "preprocess.json").read_text())


@pytest.fixture(scope="module")
def all_runs(recorded, golden, llama_tokenizer):
    """(run, tokenizer) of every template."""
    found = []
    for run in recorded["runs"]:
        options = run["tokenizer"]
        if "dir" in options:
            tokenizer = AutoTokenizer.from_pretrained(golden.parent / options["dir"])
        else:
            tokenizer = llama_tokenizer(legacy=options["legacy"])
            tokenizer.add_bos_token = options["add_bos_token"]
            if "kind" in options:
                tokenizer.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
        tokenizer.model_max_length = options["model_max_length"]
        tokenizer.add_special_tokens({"pad_token": run["pad"][0]})
        assert tokenizer.pad_token_id == run["pad"][1]
        found.append((run, tokenizer))
    return found


def is_chatml(run):
    return conv_templates.get(run["version"], conv_templates["v1"]).sep_style is SeparatorStyle.MPT


@pytest.fixture(scope="module")
def runs(all_runs):
    """Without ChatML's, where upstream's warning is its own bug."""
    return [(run, tokenizer) for run, tokenizer in all_runs if not is_chatml(run)]


@pytest.fixture(scope="module")
def chatml_runs(all_runs):
    return [(run, tokenizer) for run, tokenizer in all_runs if is_chatml(run)]


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


def test_ids_and_labels(recorded, all_runs):
    checked = 0
    for run, tokenizer in all_runs:
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


BY_STYLE = {
    SeparatorStyle.TWO: upstream.preprocess_v1,
    SeparatorStyle.LLAMA_2: upstream.preprocess_llama_2,
    SeparatorStyle.MPT: upstream.preprocess_mpt,
}


def test_upstreams_functions_give_the_recorded_ids_and_labels(recorded, all_runs, monkeypatch):
    """As its scripts call them: the template is the module's default, and rows are stacked where upstream's are."""
    styles = set()
    for run, tokenizer in all_runs:
        template = template_of(run["version"])
        monkeypatch.setattr(conversation_module, "default_conversation", template)
        options = SimpleNamespace(is_multimodal=True, mm_use_im_start_end=run["mm_use_im_start_end"])
        for name, case in run["cases"].items():
            conversation = recorded["conversations"][name]
            if refused(case):
                continue
            sources = [messages_of(conversation)]
            if conversation["has_image"]:
                sources = upstream.preprocess_multimodal(sources, options)
            found = [upstream.preprocess(sources, tokenizer, has_image=conversation["has_image"])]
            if template.sep_style in BY_STYLE:
                found.append(BY_STYLE[template.sep_style](sources, tokenizer, has_image=conversation["has_image"]))
                assert all(isinstance(one["input_ids"], torch.Tensor) for one in found)
            elif template.sep_style is SeparatorStyle.PLAIN:
                found.append(upstream.preprocess_plain(sources, tokenizer))
            for one in found:
                assert one["input_ids"][0].tolist() == case["input_ids"], (run["version"], name)
                assert one["labels"][0].tolist() == case["labels"], (run["version"], name)
            styles.add(template.sep_style)
    assert styles >= {*BY_STYLE, SeparatorStyle.PLAIN}


def test_chatml_where_upstream_warns_and_learns_nothing(recorded, chatml_runs):
    """Its ids are right; its labels are a bug. Ours are every answer with the mark that ends it."""
    checked = 0
    for run, tokenizer in chatml_runs:
        for name, case in run["cases"].items():
            if "error" in case or not case["mismatch_warning"]:
                continue
            where = f"{run['version']} {run['tokenizer']} {name}"
            conversation = recorded["conversations"][name]
            if name == "human_last":
                with pytest.raises(DataError, match=f"sample {name}: the last question has no answer"):
                    prepared(conversation, run, tokenizer, name)
                continue
            messages, sample = prepared(conversation, run, tokenizer, name)
            ids, labels = sample["input_ids"][0], sample["labels"][0]
            assert ids.tolist() == case["input_ids"], where
            answers = [m["value"] for m in messages[messages[0]["from"] == "gpt" :] if m["from"] == "gpt"]
            expected = "".join(f"{answer}<|im_end|>" for answer in answers)
            learned = tokenizer.decode(ids[labels != -100])
            if len(ids) < run["tokenizer"]["model_max_length"]:
                assert squeezed(learned) == squeezed(expected), where
            assert torch.equal(labels[labels != -100], ids[labels != -100])
            checked += 1
    assert checked, "the folder records no labels"


def squeezed(text):
    """A mark that is not one token may share one with what stands after it; spaces are the tokenizer's."""
    return "".join(text.replace("><|im_start|", ">").replace("><", ">").split())


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
