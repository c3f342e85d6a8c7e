"""Clients that nobody here wrote, over real sockets: the openai package, curl, upstream's test_message."""

import base64
import json
import shutil
import subprocess
import sys
import zipfile

import openai
import pytest

from ada.latency.measure import calibrate
from ada.latency.ttft_predictor import TTFTPredictor
from llava.generation import SamplingParams, answer
from llava.mm_utils import load_image

TEMPLATE = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, "
    "and polite answers to the human's questions. USER: {} ASSISTANT:"
)


@pytest.fixture(scope="module")
def client(served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.api.address}/v1", api_key="none", max_retries=0, timeout=600)


@pytest.fixture(scope="module")
def alone(loaded):
    """``alone(words, picture=None, tokens, **options)``: the same model's greedy answer, without any server."""

    def ask(words, picture=None, tokens=6, **options) -> str:
        result = answer(
            loaded.model,
            loaded.tokenizer,
            loaded.image_processor,
            TEMPLATE.format(words),
            [] if picture is None else [load_image(picture)],
            sampling=SamplingParams(max_new_tokens=tokens),
            options=options,
            stop="</s>",
        )
        return result.text

    return ask


def said(words, address=None) -> list[dict]:
    parts = [{"type": "text", "text": words}]
    if address is not None:
        parts.append({"type": "image_url", "image_url": {"url": address}})
    return [{"role": "user", "content": parts}]


def test_models(client) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"
    with pytest.raises(openai.NotFoundError, match="'other'"):
        client.models.retrieve("other")


def test_a_plain_answer(client, alone, loaded) -> None:
    chat = [{"role": "user", "content": "w5 w6"}]
    got = client.chat.completions.create(model="tiny", messages=chat, temperature=0, max_tokens=6)
    assert got.choices[0].message.content == alone("w5 w6") != ""
    assert got.choices[0].finish_reason == "length" and got.choices[0].message.role == "assistant"
    prompt_tokens = len(loaded.tokenizer(TEMPLATE.format("w5 w6")).input_ids)
    usage = (got.usage.prompt_tokens, got.usage.completion_tokens, got.usage.total_tokens)
    assert usage == (prompt_tokens, 6, prompt_tokens + 6)
    assert got.llava["latency_budget"]["requested"] is None and got.llava["latency_budget"]["granted"] == 1
    assert got.id == f"chatcmpl-{got._request_id}" and got.model == "tiny"


def test_a_picture_and_a_budget(client, alone, picture, image_text) -> None:
    chat = said("w5", f"data:image/png;base64,{image_text}")
    create = client.chat.completions.create
    got = create(model="tiny", messages=chat, temperature=0, max_tokens=6, extra_body={"latency_budget": 0.5})
    assert got.choices[0].message.content == alone("<image>\nw5", picture, latency_budget=0.5)
    budget = got.llava["latency_budget"]
    assert (budget["requested"], budget["granted"], budget["met"]) == (0.5, 0.5, True)
    assert "budget 0.5" in budget["summary"] and budget["heads"] == [8, 16]
    assert budget["predicted_ms"] is None and 0 < budget["measured_ms"] <= got.llava["time_to_first_token_ms"]
    assert got.llava["time_to_first_token_ms"] < got.llava["total_ms"]


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_stream(client, alone, picture, image_text, include_usage) -> None:
    chat = said("w5 w7", f"data:image/png;base64,{image_text}")
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    stream = client.chat.completions.create(
        model="tiny", messages=chat, temperature=0, max_completion_tokens=6, stream=True, **options
    )
    pieces = list(stream)
    if include_usage:
        *pieces, last = pieces
        assert last.choices == [] and last.usage.completion_tokens == 6
        assert all(piece.usage is None for piece in pieces)
    deltas = [piece.choices[0].delta for piece in pieces]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == alone("<image>\nw5 w7", picture)
    ends = [piece.choices[0].finish_reason for piece in pieces]
    assert ends[-1] == "length" and set(ends[:-1]) == {None}
    assert pieces[-1].llava["latency_budget"]["granted"] == 1 and len({piece.id for piece in pieces}) == 1


def test_a_chat_of_several_turns_and_a_stop(client, alone) -> None:
    chat = [
        {"role": "user", "content": "w5"},
        {"role": "assistant", "content": "w8 w9"},
        {"role": "user", "content": "w6"},
    ]
    words = "w5 ASSISTANT: w8 w9</s>USER: w6"
    got = client.chat.completions.create(model="tiny", messages=chat, temperature=0, max_tokens=8)
    whole = got.choices[0].message.content
    assert whole == alone(words, tokens=8)
    stop = next(word for word in whole.split()[2:] if whole.find(word) > 5)
    cut = client.chat.completions.create(model="tiny", messages=chat, temperature=0, max_tokens=8, stop=[stop])
    assert cut.choices[0].message.content == whole[: whole.index(stop)].strip()
    assert cut.choices[0].finish_reason == "stop"


def test_a_seed_draws_the_same_again_and_top_p_counts(client, alone) -> None:
    def ask(**settings) -> str:
        chat = [{"role": "user", "content": "w5"}]
        got = client.chat.completions.create(model="tiny", messages=chat, max_tokens=8, **settings)
        return got.choices[0].message.content

    drawn = [ask(temperature=2, seed=seed) for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1
    assert ask(temperature=2, top_p=0) == alone("w5", tokens=8)


def test_errors_are_the_packages_own(client) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError) as none:
        create(model="other", messages=said("w5"))
    assert none.value.code == "model_not_found" and none.value.param == "model" and "tiny" in none.value.message
    with pytest.raises(openai.BadRequestError) as bad:
        create(model="tiny", messages=said("w5"), extra_body={"latency_budget": 3})
    assert "(0, 1]" in bad.value.message
    with pytest.raises(openai.BadRequestError) as hot:
        create(model="tiny", messages=said("w5"), temperature=7)
    assert hot.value.param == "temperature"
    with pytest.raises(openai.BadRequestError, match="not calibrated"):
        create(model="tiny", messages=said("w5"), extra_headers={"x-slo-ttft-ms": "850"})
    with pytest.raises(openai.BadRequestError, match="x-slo-ttft-ms"):
        create(model="tiny", messages=said("w5"), extra_headers={"x-slo-ttft-ms": "soon"})


def test_milliseconds(client, loaded, monkeypatch) -> None:
    """On a calibrated worker the answer says what was promised and what it took."""
    profile, _ = calibrate(loaded.model, 16)
    monkeypatch.setattr(loaded.model, "latency", TTFTPredictor(profile, loaded.model.units))
    got = client.chat.completions.create(
        model="tiny", messages=said("w5"), max_tokens=3, extra_headers={"x-slo-ttft-ms": "60000"}
    )
    budget = got.llava["latency_budget"]
    assert (budget["requested"], budget["requested_ms"], budget["granted"], budget["met"]) == (None, 60000, 1, True)
    assert 0 < budget["predicted_ms"] < 60000 and budget["measured_ms"] > 0
    header, strict = {"x-slo-ttft-ms": "0.001"}, {"latency_budget_policy": "strict"}
    late = client.chat.completions.create(model="tiny", messages=said("w5"), max_tokens=3, extra_headers=header)
    assert late.llava["latency_budget"]["met"] is False
    with pytest.raises(openai.APIError, match="at the least"):
        client.chat.completions.create(model="tiny", messages=said("w5"), extra_headers=header, extra_body=strict)


def curl(*arguments) -> str:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["curl", "--silent", "--show-error", "--no-buffer", "--noproxy", "*", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout


def test_curl(served, alone, picture) -> None:
    json_header = ["-H", "Content-Type: application/json"]
    url = f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
    body = {"model": "tiny", "messages": said("w5", url), "temperature": 0, "max_tokens": 4}
    chat = f"{served.api.address}/v1/chat/completions"
    whole = json.loads(curl(chat, *json_header, "-d", json.dumps(body)))
    expected = alone("<image>\nw5", picture, tokens=4)
    assert whole["choices"][0]["message"]["content"] == expected
    events = curl(chat, *json_header, "-d", json.dumps({**body, "stream": True})).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events[:-2]]
    assert "".join(delta.get("content", "") for delta in deltas) == expected
    told = curl("-X", "POST", f"{served.controller.address}/list_models")
    assert json.loads(told) == {"models": ["tiny"]}
    assert "adallava:generation_tokens_total" in curl(f"{served.worker.address}/metrics")


@pytest.mark.network
def test_upstreams_test_message(served, tmp_path) -> None:
    """Its own module from the PyPI package, alone: the rest of the package needs an old transformers."""
    fetch = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "-d",
        tmp_path,
        "llava-torch==1.2.2.post1",
    ]
    fetched = subprocess.run(fetch, capture_output=True, text=True)
    if fetched.returncode:
        pytest.skip(f"llava-torch cannot be fetched: {fetched.stderr.strip()[-300:]}")
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        for name in ("llava/conversation.py", "llava/serve/__init__.py", "llava/serve/test_message.py"):
            wheel.extract(name, tmp_path)
    (tmp_path / "llava" / "__init__.py").touch()
    flags = ["--controller-address", served.controller.address, "--model-name", "tiny", "--message", "w5 w6"]
    command = [sys.executable, "-m", "llava.serve.test_message", *flags, "--max-new-tokens", "5"]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "NO_PROXY": "*"}

    def generated() -> float:
        return served.service.registry.get_sample_value("adallava:generation_tokens_total", {"model_name": "tiny"})

    before = generated()
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert "Models: ['tiny']" in ran.stdout and f"worker_addr: {served.worker.address}" in ran.stdout
    # Its stop text is the template's separator, a space: the answer ends with its first word, or with its fifth token.
    assert "USER: w5 w6" in ran.stdout.replace("\n", " ") and before < generated() <= before + 5
