"""A given answer is as likely as the steps of ``generate`` make it."""

from __future__ import annotations

import pytest
import torch

from ada.eval.lmms.likelihood import answer_loss
from ada.eval.lmms.task_answers import answers, images_of, prompt_of
from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import DataError, OptionError


@pytest.mark.parametrize(
    "tokens", [{}, {"image_tokens": "50%"}, {"image_tokens": "3/1", "token_selector": "grid/fastv"}]
)
@pytest.mark.parametrize("budget", [None, 0.75])
def test_answer_loss_is_that_of_generations_steps(answerer, questions, generate_keywords, budget, tokens) -> None:
    """Three tokens and the end, one by one through ``generate``, which decodes with a cache, under the plan it made."""
    keywords = generate_keywords(budget, **tokens)
    end = answerer.tokenizer.eos_token_id
    for question in questions:
        images = images_of(question.visuals(), "")
        output = answerer.model.generate(
            torch.tensor([answerer.ids(prompt_of(answerer, question.context, 1, ""))]),
            images=answerer.pixels(images, [[IMAGE_TOKEN_INDEX]]),
            max_new_tokens=4,
            do_sample=False,
            suppress_tokens=[0, 1, end],
            output_logits=True,
            return_dict_in_generate=True,
            **keywords,
        )
        steps = torch.stack([logits[0] for logits in output.logits]).log_softmax(dim=-1)
        ids = [*output.sequences[0, :3].tolist(), end]
        loss, own = answer_loss(answerer, question.context, answerer.tokenizer.decode(ids[:3]), images, keywords, "")
        assert loss == pytest.approx(-steps[range(4), ids].mean().item(), abs=1e-4)
        assert own == (steps.argmax(dim=-1).tolist() == ids)


def test_answer_loss_recognizes_the_models_own_answer(answerer, questions, keywords) -> None:
    """Found by raising what ends an answer above its second word; in some questions that ends it before the first."""
    weight, end = answerer.model.lm_head.weight, answerer.tokenizer.eos_token_id
    before, found = weight.data.clone(), []
    for question in questions:
        ((_, given),) = answers(answerer, [question], 1, keywords, 0)
        word, second, *_ = given.text.split()
        arguments = (answerer, question.context, word, images_of(question.visuals(), ""), keywords, "")
        assert not answer_loss(*arguments)[1]
        try:
            weight.data[end] = weight.data[answerer.tokenizer.convert_tokens_to_ids(second)] * 1.01
            ((_, ended),) = answers(answerer, [question], 1, keywords, 0)
            found.append(ended.text == word)
            assert answer_loss(*arguments)[1] == found[-1]
        finally:
            weight.data[:] = before
    assert any(found)


def test_answer_loss_refuses_empty_answers_and_budgets_not_met(answerer, questions) -> None:
    images = images_of(questions[0].visuals(), "")
    with pytest.raises(DataError, match="question 3 of quiz has an empty answer"):
        answer_loss(answerer, "w3", " ", images, {}, "question 3 of quiz")
    strict = {"latency_budget": 0.1, "planner": None, "strict_latency_budget": True}
    with pytest.raises(OptionError, match=r"the minimum reachable budget is 0\.3334"):
        answer_loss(answerer, "w3", "w4", images, strict, "")


@pytest.mark.parametrize("budget", [None, 0.75])
@pytest.mark.parametrize("cut_off", [5, 9, 30])
def test_answer_loss_does_not_depend_on_where_training_cut_samples(
    answerer, questions, generate_keywords, monkeypatch, budget, cut_off
) -> None:
    question, keywords = questions[0], generate_keywords(budget)
    images = images_of(question.visuals(), "")
    monkeypatch.setattr(answerer.model.config, "tokenizer_model_max_length", None, raising=False)
    expected = answer_loss(answerer, question.context, "w4 w5", images, keywords, "")
    monkeypatch.setattr(answerer.model.config, "tokenizer_model_max_length", cut_off)
    assert answer_loss(answerer, question.context, "w4 w5", images, keywords, "") == expected


def test_answer_loss_names_a_question_that_is_too_long_with_its_answer(answerer, questions) -> None:
    images = images_of(questions[0].visuals(), "")
    maximum = answerer.context_length
    with pytest.raises(OptionError, match=rf"question 3 of quiz, with its answer, has .* the maximum is {maximum:,}"):
        answer_loss(answerer, "w3 " * maximum, "w4", images, {}, "question 3 of quiz")
