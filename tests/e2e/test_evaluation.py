"""``model_vqa*``: answers, chunks, batches, restarts, budgets, records, on a tiny adaptive checkpoint."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from ada.scheduling.execution_plan import ExecutionPlan
from llava.errors import OptionError
from llava.eval import model_qa, model_vqa, model_vqa_loader, model_vqa_mmbench, model_vqa_science
from llava.eval.answering.batched_generation import Answerer
from llava.files.jsonl import RecordFile, lines_of
from llava.generation import SamplingParams, answer, conversation_for, stop_text, with_image_tags
from llava.model.builder import load_pretrained_model

TIMES = ("time_to_first_token_ms", "tokens_per_second", "batch_size")
QUESTIONS = 7


@pytest.fixture(scope="module")
def quiz(tmp_path_factory):
    """A folder of ``questions.jsonl`` and its images; the first question comes twice."""
    folder = tmp_path_factory.mktemp("quiz")
    rows = []
    for number in range(QUESTIONS - 1):
        image = f"{number}.png"
        Image.effect_noise((20 + number, 30), 40 + 20 * number).convert("RGB").save(folder / image)
        text = " ".join(f"w{(5 * number + word) % 57 + 3}" for word in range(1 + number % 3))
        rows.append({"question_id": f"q{number}", "image": image, "text": text, "category": "all"})
    (folder / "questions.jsonl").write_text(lines_of([*rows, rows[0]]))
    return folder


@pytest.fixture
def flags(quiz, adaptive_checkpoint, tmp_path):
    """``flags(*more, out="answers.jsonl")``."""

    def make(*more: object, out: str = "answers.jsonl", questions: str = "questions.jsonl") -> list[str]:
        paths = {"--model-path": adaptive_checkpoint, "--image-folder": quiz, "--answers-file": tmp_path / out}
        paths |= {"--question-file": quiz / questions, "--device": "cpu", "--temperature": 0, "--max_new_tokens": 4}
        return [str(x) for pair in paths.items() for x in pair] + [str(x) for x in more]

    return make


def records(path, timeless: bool = True) -> list[dict]:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    if timeless:
        for row in rows:
            row["metadata"] = {name: value for name, value in row["metadata"].items() if name not in TIMES}
    return rows


@pytest.mark.parametrize("batch", [1, 3])
def test_answers_are_those_of_one_question_at_a_time(flags, quiz, adaptive_checkpoint, tmp_path, batch) -> None:
    code = model_vqa_loader.main(flags("--latency-budget", "0.75", "--batch-size", batch))
    assert code == 0 and not list(tmp_path.glob("*.part"))
    found = records(tmp_path / "answers.jsonl", timeless=False)
    tokenizer, model, processor, _ = load_pretrained_model(str(adaptive_checkpoint), None, "tiny", device="cpu")
    questions = [json.loads(line) for line in (quiz / "questions.jsonl").read_text().splitlines()]
    for question, record in zip(questions, found, strict=True):
        conversation = conversation_for(model, "tiny", None)
        conversation.append_message(conversation.roles[0], with_image_tags(model, question["text"], 1))
        conversation.append_message(conversation.roles[1], None)
        alone = answer(
            model, tokenizer, processor, conversation.get_prompt(),
            [Image.open(quiz / question["image"]).convert("RGB")],
            sampling=SamplingParams(max_new_tokens=4), options={"latency_budget": "0.75"}, stop=stop_text(conversation),
        )  # fmt: skip
        names = ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
        assert list(record) == names and record["model_id"] == "checkpoint"
        assert [record[name] for name in names[:3]] == [question["question_id"], question["text"], alone.text]
        metadata, plan = record["metadata"], ExecutionPlan.from_json(record["metadata"]["plan"])
        assert plan == ExecutionPlan.from_json(alone.metadata["plan"]) and metadata["share"] == plan.share == 0.75
        for name in ("prefill_flops", "decode_flops", "prompt_tokens", "granted", "layers", "heads", "summary"):
            assert metadata[name] == json.loads(json.dumps(alone.metadata[name])), name
        assert metadata["new_tokens"] == alone.timing["new_tokens"] and metadata["time_to_first_token_ms"] > 0
        assert metadata["settings"]["latency_budget"] == "0.75" and metadata["batch_size"] <= batch
    assert len({record["text"] for record in found}) > 2, "answers that are all alike would hide a mistake"
    assert found[0]["text"] == found[-1]["text"] and len(found) == QUESTIONS


@pytest.mark.parametrize("tokens", [("50%", "divprune"), ("3/1", "grid/fastv")])
def test_answers_from_fewer_image_tokens_are_the_same_in_batches(flags, tmp_path, tokens) -> None:
    amount, selector = tokens
    more = ["--image-tokens", amount, "--token-selector", selector, "--latency-budget", "0.75"]
    for batch in (1, 3):
        assert model_vqa_loader.main(flags(*more, "--batch-size", batch, out=f"{batch}.jsonl")) == 0
    alone, batched = (records(tmp_path / f"{batch}.jsonl") for batch in (1, 3))
    for one, other in zip(alone, batched, strict=True):
        assert one["text"] == other["text"] and one["metadata"]["image_tokens"] == other["metadata"]["image_tokens"]
    metadata = alone[0]["metadata"]
    counts = {"50%": {"all": 4, "kept": 2, "late": 2}, "3/1": {"all": 4, "kept": 3, "late": 1}}
    assert metadata["image_tokens"] == counts[amount]
    assert (metadata["settings"]["image_tokens"], metadata["settings"]["token_selector"]) == tokens
    assert model_vqa_loader.main(flags("--image-tokens", "all", out="all.jsonl")) == 0
    assert [row["text"] for row in records(tmp_path / "all.jsonl")] != [row["text"] for row in alone]


@pytest.mark.parametrize("amount", ["0", "-3", "200%", "auto"])
def test_image_tokens_that_are_none_end_the_program_before_a_question(flags, tmp_path, capsys, amount) -> None:
    try:
        code = model_vqa_loader.main(flags("--image-tokens", amount))
    except SystemExit as ended:
        code = ended.code
    said = capsys.readouterr().err
    assert code == 2 and "--image-tokens" in said and repr(amount) in said and "Traceback" not in said
    assert not list(tmp_path.glob("*.jsonl*"))


def test_chunks_give_the_same_records(flags, tmp_path) -> None:
    assert model_vqa.main(flags()) == 0
    parts = []
    for index in range(3):
        assert model_vqa.main(flags("--num-chunks", 3, "--chunk-idx", index, out=f"{index}.jsonl")) == 0
        parts += records(tmp_path / f"{index}.jsonl")
    assert parts == records(tmp_path / "answers.jsonl")
    assert model_vqa.main(flags("--num-chunks", 9, "--chunk-idx", 8, out="none.jsonl")) == 0
    assert (tmp_path / "none.jsonl").read_text() == "", "more processes than questions"


def test_sampling_does_not_depend_on_chunks(flags, tmp_path) -> None:
    sampled = ("--temperature", 1.0)
    assert model_vqa.main(flags(*sampled)) == 0
    assert model_vqa.main(flags(*sampled, "--num-chunks", 2, "--chunk-idx", 1, out="1.jsonl")) == 0
    assert records(tmp_path / "1.jsonl") == records(tmp_path / "answers.jsonl")[4:]
    assert model_vqa.main(flags(*sampled, "--seed", 5, out="other.jsonl")) == 0
    texts = [[row["text"] for row in records(tmp_path / name)] for name in ("answers.jsonl", "other.jsonl")]
    assert texts[0] != texts[1]


def test_stopped_run_resumes(flags, tmp_path, monkeypatch) -> None:
    assert model_vqa.main(flags(out="whole.jsonl")) == 0
    original, calls = Answerer.answer, []

    def counted(self, *args, **kwargs):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(len(args[0]))
        return original(self, *args, **kwargs)

    monkeypatch.setattr(Answerer, "answer", counted)
    with pytest.raises(KeyboardInterrupt):
        model_vqa.main(flags())
    part = tmp_path / "answers.jsonl.part"
    assert len(part.read_text().splitlines()) == 3 and not (tmp_path / "answers.jsonl").exists()
    with part.open("a") as file:
        file.write('{"question_id": "q3", "te')  # killed in the middle of a line
    calls.clear()
    monkeypatch.setattr(Answerer, "answer", lambda self, *a, **k: calls.append(len(a[0])) or original(self, *a, **k))
    assert model_vqa.main(flags()) == 0 and len(calls) == QUESTIONS - 3
    assert records(tmp_path / "answers.jsonl") == records(tmp_path / "whole.jsonl")
    before = (tmp_path / "answers.jsonl").read_bytes()
    assert model_vqa.main(flags()) == 0 and len(calls) == QUESTIONS - 3, "all was there"
    assert (tmp_path / "answers.jsonl").read_bytes() == before and not part.exists()


def test_killed_run_resumes(flags, root, quiz, tmp_path) -> None:
    rows = [json.loads(line) for line in (quiz / "questions.jsonl").read_text().splitlines()]
    many = [{**row, "question_id": f"{row['question_id']}-{turn}"} for turn in range(60) for row in rows[:-1]]
    (quiz / "many.jsonl").write_text(lines_of(many))
    command = [sys.executable, "-m", "llava.eval.model_vqa", *flags(questions="many.jsonl")]
    part = tmp_path / "answers.jsonl.part"
    here = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, cwd=root, stderr=subprocess.DEVNULL, env=here) as run:
        while run.poll() is None and not (part.exists() and part.stat().st_size):
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    given = len(part.read_text().splitlines())
    assert 0 < given < len(many), "killed on the way"
    assert model_vqa.main(flags(questions="many.jsonl")) == 0
    assert [row["question_id"] for row in records(tmp_path / "answers.jsonl")] == [row["question_id"] for row in many]


WRITE = """
import sys, time
from pathlib import Path
from llava.files.jsonl import RecordFile
file = RecordFile(Path(sys.argv[1]))
file.append([])
print("here", flush=True)
sys.stdin.read()
"""


def test_two_processes_never_write_one_file(flags, root, tmp_path, capsys) -> None:
    """As when a script was killed, but not its processes, and the script is started again."""
    command = [sys.executable, "-c", WRITE, str(tmp_path / "answers.jsonl")]
    here = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=here) as other:
        assert other.stdout.readline() == b"here\n"
        assert model_vqa.main(flags()) == 2
        assert "another process is writing" in capsys.readouterr().err
        assert (tmp_path / "answers.jsonl.part").read_text() == ""
        other.stdin.close()
    assert model_vqa.main(flags()) == 0 and len(records(tmp_path / "answers.jsonl")) == QUESTIONS


def test_records_of_another_process_are_not_written_twice(tmp_path) -> None:
    """The file was read while another process wrote, which has ended when the first batch is written."""
    path = tmp_path / "answers.jsonl"
    path.with_name("answers.jsonl.part").write_text('{"question_id": 1}\n{"question_id": 2, "te')
    late = RecordFile(path)
    assert late.records == [{"question_id": 1}]
    other = RecordFile(path)
    other.append([{"question_id": 2}])
    other._stream.close()  # as where it is killed
    with pytest.raises(OptionError, match=r"has written .* meanwhile"):
        late.append([{"question_id": 2}])
    again = RecordFile(path)
    assert again.records == [{"question_id": 1}, {"question_id": 2}]
    again.append([{"question_id": 3}])
    again.finish(again.records)
    assert [row["question_id"] for row in map(json.loads, path.read_text().splitlines())] == [1, 2, 3]


@pytest.mark.parametrize(
    ("more", "named"),
    [(("--latency-budget", "0.6"), "latency_budget"), (("--seed", "1"), "seed"), (("--conv-mode", "v0"), "conv_mode")],
)
def test_answers_of_two_runs_never_mix(flags, tmp_path, capsys, more, named) -> None:
    assert model_vqa.main(flags()) == 0
    full = (tmp_path / "answers.jsonl").read_bytes()
    assert model_vqa.main(flags(*more)) == 2
    assert f"another {named}; remove it, or choose another --answers-file" in capsys.readouterr().err
    assert (tmp_path / "answers.jsonl").read_bytes() == full
    (tmp_path / "answers.jsonl").rename(tmp_path / "answers.jsonl.part")
    assert model_vqa.main(flags(*more)) == 2 and not (tmp_path / "answers.jsonl").exists()


def test_answers_to_other_questions_are_refused(flags, quiz, tmp_path, capsys) -> None:
    (quiz / "first.jsonl").write_text("".join((quiz / "questions.jsonl").open().readlines()[:2]))
    assert model_vqa.main(flags()) == 0
    assert model_vqa.main(flags(questions="first.jsonl")) == 2
    assert "question 'q2', which is not asked here" in capsys.readouterr().err
    (tmp_path / "answers.jsonl").write_text("".join((tmp_path / "answers.jsonl").open().readlines()[:2]))
    assert model_vqa.main(flags()) == 2
    assert "holds 2 answers to 7 questions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", "is empty"),
        ("{\n", "line 1 is not JSON"),
        ("[1]\n", "expected a JSON object"),
        ('{"question_id": 1, "image": "0.png"}\n', "question 1 lacks 'text'"),
        ('{"question_id": 1, "image": "lost.png", "text": "w5"}\n', "no image 'lost.png'"),
    ],
)
def test_faulty_question_files(flags, quiz, tmp_path, capsys, lines, message) -> None:
    (quiz / "faulty.jsonl").write_text(lines)
    assert model_vqa.main(flags(questions="faulty.jsonl")) == 2
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--num-chunks", "2", "--chunk-idx", "2"), "--chunk-idx is 2"),
        (("--batch-size", "0"), "--batch-size 0"),
        (("--seed", "1" * 30), "--seed is 1"),
        (("--temperature", "nan"), "--temperature is nan"),
        (("--latency-budget", "0.2", "--strict-latency-budget"), "0.5"),
        (("--question-file", "nowhere.jsonl"), "nowhere.jsonl cannot be read"),
    ],
)
def test_flags_out_of_range_are_user_errors(flags, tmp_path, capsys, more, named) -> None:
    assert model_vqa.main(flags(*more)) == 2
    said = capsys.readouterr()
    assert named in said.err and "Traceback" not in said.err and not list(tmp_path.iterdir())


def test_unreadable_budget_is_refused_by_the_parser(flags, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit, match="2"):
        model_vqa.main(flags("--latency-budget", "3 parsecs"))
    assert "'3 parsecs'" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_science_questions_with_and_without_an_image_share_a_batch(flags, quiz, tmp_path) -> None:
    rows = []
    for number in range(4):
        row = {"id": str(number), "conversations": [{"from": "human", "value": f"<image>\nw{number + 7} w9"}]}
        rows.append(row if number == 2 else {**row, "image": f"{number}.png"})
    (quiz / "science.json").write_text(json.dumps(rows))
    more = ("--single-pred-prompt", "--latency-budget", "0.75")
    for batch in (1, 4):
        out = f"{batch}.jsonl"
        assert model_vqa_science.main(flags(*more, "--batch-size", batch, out=out, questions="science.json")) == 0
    alone, joint = (records(tmp_path / f"{batch}.jsonl") for batch in (1, 4))
    assert alone == joint, "an answer's cost is that of the question asked alone"
    letters = "Answer with the option's letter from the given choices directly."
    assert [row["prompt"] for row in alone[1:3]] == [f"<image>\nw8 w9\n{letters}", f"w9 w9\n{letters}"]
    assert alone[2]["metadata"]["prompt_tokens"] < alone[1]["metadata"]["prompt_tokens"]


def test_mmbench_rounds(flags, quiz, tmp_path) -> None:
    buffer = io.BytesIO()
    Image.open(quiz / "1.png").save(buffer, "png")
    image_file = base64.b64encode(buffer.getvalue()).decode()
    lines = ["index\tquestion\thint\tA\tB\tC\tD\timage"]
    lines += [f"3\tw5\tw6\tw7\tw8\tw9\t\t{image_file}", f"4\tw5\t\tw7\tw8\t\t\t{image_file}"]
    (quiz / "table.tsv").write_text("\n".join(lines) + "\n")
    assert model_vqa_mmbench.main(flags("--all-rounds", "--single-pred-prompt", questions="table.tsv")) == 0
    rows = records(tmp_path / "answers.jsonl")
    assert [(row["question_id"], row["round_id"]) for row in rows] == [(3, 0), (3, 1), (3, 2), (4, 0), (4, 1)]
    assert rows[1]["prompt"] == "w6\nw5\nA. w8\nB. w9\nC. w7" and rows[1]["option_char"] == ["B", "C", "A"]
    assert list(rows[0])[-5:] == ["options", "option_char", "answer_id", "model_id", "metadata"]
    assert len({row["answer_id"] for row in rows}) == 5
    assert model_vqa_mmbench.main(flags("--all-rounds", "--single-pred-prompt", questions="table.tsv")) == 0


def test_questions_without_images_are_answered_under_a_budget(flags, quiz, tmp_path) -> None:
    assert model_qa.main(flags("--latency-budget", "0.6", "--batch-size", 3)) == 0
    rows = records(tmp_path / "answers.jsonl")
    assert {row["metadata"]["requested"] for row in rows} == {0.6} and len(rows) == QUESTIONS
    assert model_vqa.main(flags("--latency-budget", "0.6", out="seen.jsonl")) == 0
    with_images = records(tmp_path / "seen.jsonl")
    assert all(
        own["metadata"]["prompt_tokens"] < other["metadata"]["prompt_tokens"]
        for own, other in zip(rows, with_images, strict=True)
    )


def test_plain_llava_answers_without_the_overlays_metadata(flags, tiny_checkpoint, tmp_path) -> None:
    assert model_vqa.main(flags("--model-path", tiny_checkpoint)) == 0
    assert set(records(tmp_path / "answers.jsonl")[0]["metadata"]) == {"settings", "new_tokens"}
