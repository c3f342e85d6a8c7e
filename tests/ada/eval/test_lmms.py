"""What the model for lmms-eval does with questions and settings. lmms-eval itself: tests/e2e/test_lmms.py."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from PIL import Image

from ada.eval.lmms import figures, settings
from ada.eval.lmms.asking import Asked, answers, pictures_of, prompt_of
from ada.eval.lmms.likelihood import answer_loss
from ada.eval.lmms.settings import Generation, generation_of
from llava.errors import DataError, OptionError
from llava.eval import model_vqa_loader
from llava.eval.answering.runner import load_answerer
from llava.generation import SamplingParams
from llava.plugins import hooks, merged

GREEDY = generation_of({"max_new_tokens": 3, "until": []})
BUDGET = 0.75


# Settings


@pytest.mark.parametrize(
    ("wanted", "sampling"),
    [
        ({}, SamplingParams(max_new_tokens=1024)),
        ({"temperature": 0.0, "top_p": 0, "num_beams": 1, "max_new_tokens": 128}, SamplingParams(max_new_tokens=128)),
        ({"do_sample": True, "top_p": 0.9}, SamplingParams(1.0, 0.9, 1, 1024)),
        ({"do_sample": True, "temperature": 0.2}, SamplingParams(0.2, None, 1, 1024)),
        ({"temperature": 0.7, "max_new_tokens": None}, SamplingParams(0.7, None, 1, 1024)),
        ({"do_sample": False, "temperature": 0.7, "num_beams": 3}, SamplingParams(num_beams=3, max_new_tokens=1024)),
    ],
)
def test_how_a_task_wants_its_answers(wanted, sampling) -> None:
    assert generation_of(wanted).sampling == sampling


def test_where_an_answer_stops() -> None:
    for until, stops in ((None, ()), ("###", ("###",)), (["a", "", "b"], ("a", "b"))):
        assert generation_of({"until": until}).stops == stops
    for until in (3, [None]):
        with pytest.raises(OptionError, match="expected a text, or a list of texts"):
            generation_of({"until": until})


def test_settings_without_effect_are_named(caplog) -> None:
    with caplog.at_level(logging.WARNING):
        generation_of({"image_aspect_ratio": "original", "modalities": ["image"], "temperature": 0})
    assert "image_aspect_ratio, modalities have no effect" in caplog.text


def test_model_arguments() -> None:
    options = settings.plugin_options({"latency_budget": 0.6})
    assert options["latency_budget"] == 0.6 and options["planner"] is None
    with pytest.raises(OptionError, match=r"latencybudget; expected one of latency_budget, .*planner"):
        settings.plugin_options({"latencybudget": 0.6})
    assert settings.dtype_named("bfloat16") is torch.bfloat16
    with pytest.raises(OptionError, match="dtype is 'int8'"):
        settings.dtype_named("int8")
    assert settings.batch_size_of("8") == 8
    for size in ("auto", "0", None):
        with pytest.raises(OptionError, match="whole number from 1 up"):
            settings.batch_size_of(size)


# Figures


def test_figures_are_means_over_questions_and_times_over_tokens() -> None:
    """Counted by hand: 2 tokens at 10 ms behind the first, 6 at 20 ms, none."""
    facts = [
        {"time_to_first_token_ms": 100, "tokens_per_second": 100.0, "new_tokens": 3, "prefill_gflops": 2.0},
        {"time_to_first_token_ms": 300, "tokens_per_second": 50.0, "new_tokens": 7, "prefill_gflops": 4.0},
        {"time_to_first_token_ms": 500, "tokens_per_second": 0.0, "new_tokens": 1, "prefill_gflops": 6.0},
    ]
    each = [figures.figures_of(fact) for fact in facts]
    assert each[0] == {"time_to_first_token_ms": 100, "later_tokens": 2, "ms_per_token": 10, "prefill_gflops": 2}
    assert "ms_per_token" not in each[2]
    overall = {"time_to_first_token_ms": 300, "ms_per_token": 17.5, "prefill_gflops": 4}
    assert figures.means(each) == overall
    assert figures.means_by_task(["a", "a", "a"], each) == overall
    by_task = figures.means_by_task(["a", "a", "b"], each)
    assert by_task == {
        **overall,
        "a:time_to_first_token_ms": 200,
        "a:ms_per_token": 17.5,
        "a:prefill_gflops": 3,
        "b:time_to_first_token_ms": 500,
        "b:prefill_gflops": 6,
    }


# Answers


@pytest.fixture(scope="module")
def answerer(checkpoint_h):
    return load_answerer(str(checkpoint_h), device="cpu", conv_mode="vicuna_v1")


@pytest.fixture(scope="module")
def keywords(answerer):
    options = settings.plugin_options({"latency_budget": BUDGET})
    return merged(hooks().generation_options(model=answerer.model, options=options))


@pytest.fixture(scope="module")
def questions(quiz):
    """The quiz as a task."""
    rows = [json.loads(line) for line in (quiz / "questions.jsonl").read_text().splitlines()]

    def opened(name: str):
        return lambda: [Image.open(quiz / "images" / name)]

    return [Asked("quiz", row["question_id"], row["text"], GREEDY, opened(row["image"])) for row in rows]


def texts(answerer, questions, size, keywords) -> list[str]:
    given = dict(answers(answerer, questions, size, keywords, 0))
    assert sorted(given) == list(range(len(questions)))
    return [given[place].text for place in range(len(questions))]


def test_answers_and_figures_are_the_runners(answerer, questions, keywords, quiz, checkpoint_h, tmp_path) -> None:
    flags = ["--question-file", quiz / "questions.jsonl", "--image-folder", quiz / "images", "--temperature", 0]
    flags += ["--model-path", checkpoint_h, "--conv-mode", "vicuna_v1", "--max_new_tokens", 3, "--device", "cpu"]
    flags += ["--latency-budget", BUDGET, "--answers-file", tmp_path / "answers.jsonl"]
    assert model_vqa_loader.main([str(flag) for flag in flags]) == 0
    records = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    given = dict(answers(answerer, questions, 1, keywords, 0))
    assert [given[place].text for place in range(len(questions))] == [record["text"] for record in records]
    for place, record in enumerate(records):
        ours, theirs = figures.figures_of(given[place].facts), record["metadata"]
        for name in ("granted", "share", "prefill_gflops", "decode_gflops_per_token"):
            assert ours[name] == theirs[name]
        assert given[place].facts["plan"] == theirs["plan"] and given[place].seconds > 0


def test_batches_answer_in_order_by_their_settings(answerer, questions, keywords) -> None:
    """As one by one, in batches of unlike lengths, and with two ways of generating."""
    short = Generation(SamplingParams(max_new_tokens=1), ())
    mixed = [Asked(q.task, q.doc_id, q.context, GREEDY if q.doc_id % 3 else short, q.visuals) for q in questions]
    alone = texts(answerer, mixed, 1, keywords)
    assert texts(answerer, mixed, 5, keywords) == alone
    assert len({len(text.split()) for text in alone}) > 1


def test_an_answer_ends_in_front_of_the_first_stop_text(answerer, questions, keywords) -> None:
    whole = texts(answerer, questions, 1, keywords)
    at = next(place for place, text in enumerate(whole) if len(set(text.split())) == 3)
    first, second, third = whole[at].split()
    for until, expected in (([third, second], first), (third, f"{first} {second}"), (first, ""), ("zzz", whole[at])):
        how = generation_of({"max_new_tokens": 3, "until": until})
        asked = Asked("quiz", 0, questions[at].context, how, questions[at].visuals)
        ((_, given),) = answers(answerer, [asked], 1, keywords, 0)
        assert given.text == expected
        assert given.facts["new_tokens"] == len(expected.split()) + (until != "zzz")


def test_several_pictures_and_none(answerer, keywords, quiz) -> None:
    """In front of the text, or where the task has put their tags: not the same answer, but the same prompt as asked."""
    pictures = [Image.open(quiz / "images" / f"{n}.png") for n in range(2)]
    template = answerer.template.system + " USER: {} ASSISTANT:"
    assert prompt_of(answerer, "w3", 2, "") == template.format("<image>\n<image>\nw3")
    assert prompt_of(answerer, "w3 <image> w4 <image>", 2, "") == template.format("w3 <image> w4 <image>")
    assert prompt_of(answerer, "w3", 0, "") == template.format("w3")
    with pytest.raises(DataError, match="question 7 of quiz has 1 image tags in its text and 2 pictures"):
        prompt_of(answerer, "w3 <image>", 2, "question 7 of quiz")
    asked = [
        Asked("quiz", 0, "w3", GREEDY, lambda: pictures),
        Asked("quiz", 1, "w3 <image> w4 <image>", GREEDY, lambda: pictures),
        Asked("quiz", 2, "w3", GREEDY, lambda: None),
        Asked("quiz", 3, "w3", GREEDY, lambda: [None]),
    ]
    given = dict(answers(answerer, asked, 4, keywords, 0))
    tokens = [given[place].facts["prompt_tokens"] for place in range(4)]
    patches = answerer.model.get_vision_tower().num_patches
    assert tokens[0] - tokens[2] == 2 * patches and tokens[1] - tokens[0] == 1 and tokens[2] == tokens[3]


def test_films_are_refused() -> None:
    with pytest.raises(DataError, match="question 1 of clips shows a str; ada_llava sees pictures only"):
        pictures_of(["clip.mp4"], "question 1 of clips")


def test_repeats_draw_anew_and_runs_alike(answerer, questions, keywords) -> None:
    how = generation_of({"do_sample": True, "temperature": 2.0, "max_new_tokens": 3})
    asked = [Asked("quiz", q.doc_id, q.context, how, q.visuals) for q in questions for _ in range(2)]
    once = texts(answerer, asked, 1, keywords)
    assert once == texts(answerer, asked, 1, keywords)
    assert once[::2] != once[1::2]


# Likelihoods


@pytest.mark.parametrize("budget", [None, BUDGET])
def test_a_likelihood_is_that_of_generations_steps(answerer, questions, budget) -> None:
    """Three tokens and the end, one by one through ``generate``, which decodes with a cache, under the plan it made."""
    options = settings.plugin_options({"latency_budget": budget})
    keywords = merged(hooks().generation_options(model=answerer.model, options=options))
    end = answerer.tokenizer.eos_token_id
    for question in questions:
        pictures = pictures_of(question.visuals(), "")
        output = answerer.model.generate(
            torch.tensor([answerer.ids(prompt_of(answerer, question.context, 1, ""))]),
            images=answerer.pixels(pictures),
            max_new_tokens=4,
            do_sample=False,
            suppress_tokens=[0, 1, end],
            output_logits=True,
            return_dict_in_generate=True,
            **keywords,
        )
        steps = torch.stack([logits[0] for logits in output.logits]).log_softmax(dim=-1)
        ids = [*output.sequences[0, :3].tolist(), end]
        loss, own = answer_loss(answerer, question.context, answerer.tokenizer.decode(ids[:3]), pictures, keywords, "")
        assert loss == pytest.approx(-steps[range(4), ids].mean().item(), abs=1e-4)
        assert own == (steps.argmax(dim=-1).tolist() == ids)


def test_the_models_own_answer_is_known_as_such(answerer, questions, keywords) -> None:
    """Found by raising what ends an answer until it ends."""
    question, end = questions[0], answerer.tokenizer.eos_token_id
    pictures = pictures_of(question.visuals(), "")
    ((_, given),) = answers(answerer, [question], 1, keywords, 0)
    word = given.text.split()[0]
    weight = answerer.model.lm_head.weight
    before = weight.data.clone()
    assert not answer_loss(answerer, question.context, word, pictures, keywords, "")[1]
    try:
        weight.data[end] = weight.data[answerer.tokenizer.convert_tokens_to_ids(given.text.split()[1])] * 1.01
        assert answer_loss(answerer, question.context, word, pictures, keywords, "")[1]
    finally:
        weight.data[:] = before


def test_what_has_no_likelihood(answerer, questions) -> None:
    pictures = pictures_of(questions[0].visuals(), "")
    with pytest.raises(DataError, match="question 3 of quiz has an empty answer"):
        answer_loss(answerer, "w3", " ", pictures, {}, "question 3 of quiz")
    strict = {"latency_budget": 0.1, "planner": None, "strict_latency_budget": True}
    with pytest.raises(OptionError, match="--latency-budget is below what this model can reach"):
        answer_loss(answerer, "w3", "w4", pictures, strict, "")
