"""The deadline benchmark against a served model: what it counts, its page, and what it refuses."""

import base64
import io
import json
from xml.etree import ElementTree

import openai
import pytest
from PIL import Image

from ada.bench.__main__ import make_parser
from llava.errors import OptionError

TEXTS = ("w5", "w6 w7", "w8", "w9 w3")
NEVER, ALWAYS = "0.001ms", "600s"


@pytest.fixture
def flags(served, tmp_path) -> list[str]:
    """Flags for a question file of which the served model answers the first half as the file says."""
    image = Image.new("RGB", (8, 8), "red")
    image.save(tmp_path / "red.png")
    stream = io.BytesIO()
    image.save(stream, "png")
    url = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    client = openai.OpenAI(base_url=f"{served.api.address}/v1", api_key="none", max_retries=0, timeout=600)
    lines = []
    for number, text in enumerate(TEXTS):
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
        reply = client.chat.completions.create(
            model="tiny", temperature=0, max_tokens=5, messages=[{"role": "user", "content": content}]
        )
        answer = reply.choices[0].message.content if number < len(TEXTS) / 2 else "something else"
        lines.append({"question_id": number, "image": "red.png", "text": text, "category": "any", "answer": answer})
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    data = ["--suite", str(tmp_path / "questions.jsonl"), "--suite-data", str(tmp_path), "--max-tokens", "5"]
    return ["deadline", "--endpoint", f"{served.api.address}/v1/", "--model", "tiny", "--requests", "8", *data]


def test_deadline_counts_right_answers_in_time_and_refusals(flags, capsys, tmp_path) -> None:
    page = tmp_path / "page.html"
    refused = 'refused={"latency_budget": "total={deadline_ms}ms"}'  # this worker is not calibrated
    compared = ["--contestant", "as it is", "--contestant", refused, "--page", str(page)]
    deadlines = ["--deadlines", f"{ALWAYS},{NEVER}", "--loads", "0.5", "3"]
    args = make_parser().parse_args([*flags, *deadlines, *compared])
    args.run(args)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(found["curves"]) == 4 and found["capacity"] > 0
    for curve in found["curves"]:
        never, always = curve["points"]
        assert (never["deadline_ms"], always["deadline_ms"]) == (0.001, 600_000)
        assert never["accuracy"] == never["in_time"] == 0
        answered = curve["contestant"] == "as it is"
        assert (always["accuracy"], always["in_time"], always["refused"]) == ((0.5, 1, 0) if answered else (0, 0, 1))
    rows = ElementTree.fromstring(page.read_text()).findall(".//tr")
    assert len(rows) == 5 and "50.0 (100)" in "".join(rows[1].itertext())


def test_deadline_without_an_answer_to_its_first_questions_is_a_user_error(flags) -> None:
    args = make_parser().parse_args([*flags, "--contestant", 'late={"latency_budget": "total=9s"}'])
    with pytest.raises(OptionError, match=r"late at .* does not answer: .*is not calibrated"):
        args.run(args)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--deadlines", "0.5"], "expected times such as"),
        (["--requests", "0"], "expected numbers above 0"),
        (["--loads", "0"], "expected numbers above 0"),
    ],
)
def test_deadline_with_a_bad_flag_is_a_user_error(more, message) -> None:
    args = make_parser().parse_args(["deadline", "--endpoint", "http://localhost:1/v1", "--model", "tiny", *more])
    with pytest.raises(OptionError, match=message):
        args.run(args)


def test_deadline_of_an_endpoint_without_a_model_is_a_user_error() -> None:
    args = make_parser().parse_args(["deadline", "--endpoint", "http://localhost:1/v1"])
    with pytest.raises(OptionError, match="without --model"):
        args.run(args)
