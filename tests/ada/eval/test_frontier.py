"""The frontier's program: answers as of one question at a time, none given twice, and all files written."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from PIL import Image

from ada.eval.answering.grid import GridAnswerer
from ada.eval.frontier import Grid, main, measure, parse_arguments
from ada.frontier.choice import AutoImageTokens
from ada.frontier.share import PrefillShare
from ada.frontier.store import FILE_NAME, read_frontier, save_frontier
from ada.frontier.table import Point
from ada.image_tokens.amount import ImageTokens
from llava.errors import CheckpointError, LlavaError, OptionError
from llava.generation import SamplingParams, answer, conversation_for, stop_text, with_image_tags

pytestmark = pytest.mark.integration  # they open checkpoints' folders

NEW_TOKENS = 3


@pytest.fixture
def checkpoint(checkpoint_h, tmp_path):
    """A copy of a checkpoint that the program may write into."""
    return shutil.copytree(checkpoint_h, tmp_path / "model")


@pytest.fixture
def flags(quiz, tmp_path, checkpoint):
    """``flags(*more)``: the command line, answers going to the test's folder."""

    def make(*more: str) -> list[str]:
        return [
            *("--model-path", str(checkpoint), "--questions", str(quiz / "questions.jsonl")),
            *("--image-folder", str(quiz / "images"), "--out", str(tmp_path / "out"), "--device", "cpu"),
            *("--max-new-tokens", str(NEW_TOKENS), "--batch-size", "5", *more),
        ]

    return make


def answers_of(folder, name):
    return [json.loads(line) for line in (folder / "answers" / name).read_text().splitlines()]


def asked_alone(one_by_one, question, image, **options):
    """The answer to one question by itself, with keywords of ``generate``."""
    model = one_by_one.model
    conversation = conversation_for(model, "tiny", "vicuna_v1")
    conversation.append_message(conversation.roles[0], with_image_tags(model, question["text"], 1))
    conversation.append_message(conversation.roles[1], None)
    generate = model.generate
    one_by_one.model.generate = lambda *args, **kwargs: generate(*args, **{**kwargs, **options})
    try:
        return answer(
            model,
            one_by_one.tokenizer,
            one_by_one.image_processor,
            conversation.get_prompt(),
            [Image.open(image).convert("RGB")],
            sampling=SamplingParams(max_new_tokens=NEW_TOKENS),
            stop=stop_text(conversation),
        ).text
    finally:
        del one_by_one.model.generate


def test_answers_are_those_of_one_question_at_a_time(flags, quiz, tmp_path, checkpoint, one_by_one) -> None:
    measure(parse_arguments(flags("--image-tokens", "all", "2", "3/1", "--units", "1", "0.6")))
    alone = one_by_one(checkpoint)
    questions = [json.loads(line) for line in (quiz / "questions.jsonl").read_text().splitlines()]
    tunable, texts = alone.model.units.tunable, set()
    for amount, name in (("all", "all"), ("2", "2"), ("3/1", "3-1")):
        for num_units in (tunable, alone.model.units.granted(0.6)):
            given = answers_of(tmp_path / "out", f"{name}-{num_units}.jsonl")
            assert [one["question_id"] for one in given] == [question["question_id"] for question in questions]
            options = {"image_tokens": amount, "granted_units": torch.tensor([num_units])}
            for question, one in zip(questions, given, strict=True):
                text = asked_alone(alone, question, quiz / "images" / question["image"], **options)
                assert one["text"] == text
                assert one["right"] == (text.lower().rstrip(".") == question["answer"].lower())
                texts.add(text)
    assert len(texts) > 6, "settings change answers, or nothing is compared"


def test_files_hold_the_points_of_all_settings(flags, checkpoint, tmp_path, capsys) -> None:
    assert main(flags("--image-tokens", "all", "50%", "50%/25%", "--units", "1", "0.5", "0.3", "0.1")) == 0
    frontier = read_frontier(checkpoint)
    units = {point.units for point in frontier.points}
    assert {(point.front, point.late) for point in frontier.points} == {(1, 1), (0.5, 0.5), (0.5, 0.25)}
    assert len(frontier.points) == 3 * len(units) and max(units) == 1, "0.3 and 0.1 are below the prefix: one setting"
    names = {(1, 1): "all", (0.5, 0.5): "50pc", (0.5, 0.25): "50pc-25pc"}
    for point in frontier.points:
        path = f"{names[point.front, point.late]}-{round(point.units * 24) - 8}.jsonl"  # 6 layers of 4 units, 2 prefix
        marks = [one["right"] for one in answers_of(tmp_path / "out", path)]
        assert len(marks) == 12 and point.accuracy == sum(marks) / 12
    full = next(point for point in frontier.points if point.setting == (1, 1, 1))
    assert full.accuracy >= 0.5, "half of the quiz's truths are the model's own answers"
    out = capsys.readouterr().out
    assert "| 1.000 | all | 1 |" in out and str(checkpoint / FILE_NAME) in out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "answers",
        "frontier.md",
        "frontier.png",
        "frontier.svg",
    }
    about = json.loads((checkpoint / FILE_NAME).read_text())["about"]
    assert about["question_file"] == "questions.jsonl" and about["questions"] == 12


def _read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_stopped_run_resumes_and_ends_with_the_same_frontier(flags, checkpoint, monkeypatch) -> None:
    command = flags("--image-tokens", "all", "2", "--units", "1", "0.5")
    measure(parse_arguments([*command, "--out", str(checkpoint / "once")]))
    expected = (checkpoint / FILE_NAME).read_text()
    (checkpoint / FILE_NAME).unlink()
    original, calls = GridAnswerer.answer, []

    def counted(self, batch, images, setting):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append((batch.number, setting))
        return original(self, batch, images, setting)

    monkeypatch.setattr(GridAnswerer, "answer", counted)
    with pytest.raises(KeyboardInterrupt):
        measure(parse_arguments(command))
    assert not (checkpoint / FILE_NAME).exists()
    first, calls[:] = list(calls), []
    monkeypatch.setattr(GridAnswerer, "answer", lambda *given: (calls.append(given[1:4:2]), original(*given))[1])
    measure(parse_arguments(command))
    assert len(first) + len(calls) == 3 * 4, "12 questions in batches of 5, at 4 settings, each once"
    assert (checkpoint / FILE_NAME).read_text() == expected


def test_limit_asks_the_first_questions(flags, tmp_path) -> None:
    measure(parse_arguments(flags("--image-tokens", "all", "--units", "1", "--limit", "7")))
    (path,) = (tmp_path / "out" / "answers").glob("*.jsonl")
    assert [one["question_id"] for one in _read(path)] == list(range(7))


def test_answers_of_other_settings_are_refused(flags) -> None:
    command = flags("--image-tokens", "all", "--units", "1")
    measure(parse_arguments(command))
    with pytest.raises(LlavaError, match="answers with another --batch-size; remove it, or choose another --out"):
        measure(parse_arguments([*command, "--batch-size", "4"]))


def test_auto_goes_by_the_measured_frontier(flags, checkpoint, one_by_one) -> None:
    measure(parse_arguments(flags("--image-tokens", "all", "50%", "--units", "1", "0.5")))
    model = one_by_one(checkpoint).model
    auto = AutoImageTokens.of(model.config, PrefillShare.of(model.config, model.units))
    assert auto.frontier.source == str(checkpoint / FILE_NAME)


@pytest.mark.parametrize("planner", [[], ["--planner", "even"]])
def test_frontier_of_other_weights_is_measured_again(flags, checkpoint, planner) -> None:
    """Whatever refuses it says that this program is to measure it again."""
    save_frontier(checkpoint, [Point(1, 1, 1, 0.5)], {})
    fields = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**fields, "rope_theta": 20_000.0}))
    with pytest.raises(CheckpointError, match="measure again"):
        read_frontier(checkpoint)
    measure(parse_arguments(flags("--image-tokens", "all", "--units", "1", *planner)))
    assert [point.setting for point in read_frontier(checkpoint).points] == [(1, 1, 1)]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--image-tokens", "auto"), "--image-tokens is auto; expected amounts to measure"),
        (("--image-tokens", "0"), "--image-tokens is '0'"),
        (("--units", "1", "1.5"), r"--units has 1.5; expected shares in \(0, 1\]"),
        (("--units", "0"), "--units has 0"),
        (("--limit", "0"), "--limit is 0"),
        (("--batch-size", "0"), "--batch-size is 0"),
        (("--token-selector", "best"), "the token selector is 'best'"),
        (("--token-selector", "learned", "--image-tokens", "50%"), "has no token scorer"),
        (("--planner", "best"), "--planner is 'best'; expected one of learned, even"),
    ],
)
def test_flags_out_of_range_are_refused_before_they_are_noted(flags, tmp_path, capsys, more, message) -> None:
    assert main(flags(*more)) == 2
    assert not (tmp_path / "out").exists()  # else the same command without the slip would be refused
    error = capsys.readouterr().err
    assert re.search(message, error) and "Traceback" not in error


def test_plain_checkpoint_needs_an_untrained_planner(flags, make_checkpoint) -> None:
    command = [*flags("--image-tokens", "all", "--units", "1"), "--model-path", str(make_checkpoint())]
    with pytest.raises(OptionError, match=r"no scheduler to plan with; give --planner even\|last\|random"):
        measure(parse_arguments(command))
    assert "| 1.000 | all | 1 |" in measure(parse_arguments([*command, "--planner", "even"]))


def test_default_grid_reads_fewer_tokens_late_where_a_scorer_is_trained(make_llava, monkeypatch) -> None:
    model = make_llava("H")
    assert not any(setting.amount.late for setting in Grid.of(model, None, [1.0]).settings)
    monkeypatch.setattr(model, "token_scorer", torch.nn.Identity(), raising=False)
    monkeypatch.setattr(model.config, "token_scorer_layer", 1, raising=False)
    grid = Grid.of(model, None, [1.0])
    assert ImageTokens.parse("50%/25%") in [setting.amount for setting in grid.settings]
    assert grid.share.first_late_layer == 1
