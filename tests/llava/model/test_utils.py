"""The config of LLaVA's first checkpoints gets its model_type, where the user agrees."""

import json

import pytest

from llava.errors import CheckpointError, OptionError
from llava.model.builder import load_pretrained_model
from llava.model.utils import auto_upgrade


@pytest.fixture
def old(checkpoint):
    """``old(model_type="llama")``: a checkpoint of before 1.5, in a folder with llava in its path."""

    def make(name="llava-7b-v0", **changes):
        folder = checkpoint.rename(checkpoint.parent / name)
        fields = json.loads((folder / "config.json").read_text())
        changed = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **changes}
        (folder / "config.json").write_text(json.dumps({**fields, **changed}))
        return folder

    return make


def fields_of(folder):
    return json.loads((folder / "config.json").read_text())


def answering(monkeypatch, answer):
    questions = []

    def ask(question):
        questions.append(question)
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", ask)
    return questions


@pytest.mark.parametrize("answer", ["y", "Yes", "YES "])
def test_old_checkpoint_is_upgraded_in_place_and_opens(old, monkeypatch, answer):
    folder = old()
    before = fields_of(folder)
    questions = answering(monkeypatch, answer)
    auto_upgrade(str(folder))
    upgraded = {"model_type": "llava", "architectures": ["LlavaLlamaForCausalLM"]}
    assert fields_of(folder) == {**before, **upgraded}
    auto_upgrade(str(folder))
    assert len(questions) == 1, "it is asked once"
    _, model, processor, _ = load_pretrained_model(str(folder), None, "old", device="cpu")
    assert processor is not None and type(model).__name__ == "LlavaLlamaForCausalLM"


@pytest.mark.parametrize("answer", ["n", "", "perhaps", None])
def test_refused_upgrade_raises_and_changes_nothing(old, monkeypatch, answer):
    folder = old()
    before = (folder / "config.json").read_bytes()
    answering(monkeypatch, answer)
    with pytest.raises(OptionError, match=r"is left as it was; python -m llava\.model\.consolidate"):
        auto_upgrade(str(folder))
    assert (folder / "config.json").read_bytes() == before


@pytest.mark.parametrize("changes", [{"name": "vicuna"}, {"model_type": "llava_llama"}, {"model_type": "llava"}])
def test_other_checkpoints_stay_as_they_are(old, monkeypatch, changes):
    folder = old(**changes)
    before, questions = (folder / "config.json").read_bytes(), answering(monkeypatch, "y")
    auto_upgrade(str(folder))
    assert (folder / "config.json").read_bytes() == before and not questions


def test_other_decoder_raises(old):
    with pytest.raises(CheckpointError, match="model_type 'mistral'; LLaVA's first checkpoints have 'llama'"):
        auto_upgrade(str(old(model_type="mistral")))
