"""What a model has kept of its language: a model next to itself has lost nothing, another one has."""

import shutil
import sys

import pytest
import torch
from fixtures.training import opened
from transformers import AutoModelForCausalLM, AutoTokenizer

from playground.smol import language


@pytest.fixture
def base(plain_base, tmp_path):
    """The tiny LLaVA's language model, with a template to chat in."""
    folder = tmp_path / "base"
    shutil.copytree(plain_base, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for message in messages %}USER: {{ message.content }} ASSISTANT:{% endfor %}"
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def table(tiny_checkpoint, tmp_path, monkeypatch, capsys):
    """``table(base)``: the cells that the program prints for the tiny LLaVA, or for another model."""

    def run(base, model=tiny_checkpoint):
        text = tmp_path / "text.md"
        text.write_text(" ".join(f"w{3 + number * number % 57}" for number in range(200)))
        flags = ["--model-path", model, "--base", base, "--text", text, "--limit", "4"]
        monkeypatch.setattr(sys, "argv", ["language", *map(str, flags), "--budgets", "1"])
        assert language.main() == 0
        lines = capsys.readouterr().out.strip().splitlines()
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]

    return run


def losses(row):
    return [float(cell) for cell in row[2:]]


def test_llava_that_changed_nothing_loses_nothing(table, base):
    alone, ours = table(base)
    assert (alone[0], ours[0]) == ("the language model alone", "no budget")
    assert losses(ours) == pytest.approx(losses(alone), rel=0.01, nan_ok=True), "bfloat16 rounds"


def test_adaptive_model_is_asked_under_each_budget(table, base, adaptive_checkpoint):
    assert [row[0] for row in table(base, adaptive_checkpoint)[1:]] == ["budget 1"]


def test_another_language_model_shows(table, base):
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.lm_head.weight.mul_(3)
    model.save_pretrained(base)
    alone, ours = table(base)
    assert abs(losses(ours)[1] - losses(alone)[1]) > 0.05 * losses(alone)[1]


def test_loss_is_transformers_own(plain_base):
    model = AutoModelForCausalLM.from_pretrained(plain_base).eval()
    ids = torch.randint(3, model.config.vocab_size, (40,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(input_ids=ids[None], labels=ids[None]).loss.item()
    assert language.loss_of(model, [ids], {}) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("budget", [1.0, 0.75])
def test_loss_on_an_adaptive_models_own_answer_is_what_it_answered_with(adaptive_checkpoint, budget):
    model, _ = opened(adaptive_checkpoint, dtype=torch.float32)
    given = {"latency_budget": budget, "do_sample": False, "max_new_tokens": 12, "eos_token_id": None}
    said = model.generate(torch.tensor([[5]]), **given, output_logits=True, return_dict_in_generate=True)
    expected = [-one[0].log_softmax(-1).max().item() for one in said.logits]
    answer = torch.cat([torch.tensor([5]), said.sequences[0, -12:]])
    found = language.loss_of(model, [answer], {"latency_budget": budget})
    assert found == pytest.approx(sum(expected) / 12, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "first"), [("It is 3.5 m. Yes.", "It is 3.5 m."), ("Hi!\nAnd", "Hi!"), ("no end", "no end"), ("", "")]
)
def test_first_sentence(text, first):
    assert language.first_sentence(text) == first


def test_blocks_leave_out_what_is_left(plain_base):
    tokenizer = AutoTokenizer.from_pretrained(plain_base)
    few, many = (language.blocks_of(tokenizer, "w5 " * count) for count in (3, 3000))
    assert len(few) == 1 and len(many) > 1 and {len(block) for block in many} == {language.BLOCK}
