"""Third-party clients over real sockets: the openai package, curl, upstream's test_message."""

import base64
import json
import shutil
import subprocess
import sys
import zipfile

import openai
import pytest
from PIL import Image

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
    """``alone(text, image=None, tokens, begun, **options)``: the same model's greedy answer, without any server."""

    def ask(text, image=None, tokens=6, begun="", **options) -> str:
        result = answer(
            loaded.model,
            loaded.tokenizer,
            loaded.image_processor,
            TEMPLATE.format(text) + begun,
            [] if image is None else [load_image(image)],
            sampling=SamplingParams(max_new_tokens=tokens),
            options=options,
            stop="</s>",
        )
        return result.text

    return ask


def message(text, image_url=None) -> list[dict]:
    parts = [{"type": "text", "text": text}]
    if image_url is not None:
        parts.append({"type": "image_url", "image_url": {"url": image_url}})
    return [{"role": "user", "content": parts}]


def test_openai_models_are_listed_and_retrieved(client) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"
    with pytest.raises(openai.NotFoundError, match="'other'"):
        client.models.retrieve("other")


def test_openai_text_is_answered_as_without_a_server(client, alone, loaded) -> None:
    chat = [{"role": "user", "content": "w5 w6"}]
    got = client.chat.completions.create(model="tiny", messages=chat, temperature=0, max_tokens=6)
    assert got.choices[0].message.content == alone("w5 w6") != ""
    assert got.choices[0].finish_reason == "length" and got.choices[0].message.role == "assistant"
    prompt_tokens = len(loaded.tokenizer(TEMPLATE.format("w5 w6")).input_ids)
    usage = (got.usage.prompt_tokens, got.usage.completion_tokens, got.usage.total_tokens)
    assert usage == (prompt_tokens, 6, prompt_tokens + 6)
    assert got.llava["latency_budget"]["requested"] is None and got.llava["latency_budget"]["granted"] == 1
    assert got.id == f"chatcmpl-{got._request_id}" and got.model == "tiny"


def test_openai_photograph_is_turned_upright_and_the_answer_says_so(client, alone, tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.effect_noise((40, 20), 90).convert("RGB")
    stored.save(tmp_path / "stored.png", exif=exif)
    stored.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    text = base64.b64encode((tmp_path / "stored.png").read_bytes()).decode()
    chat = message("w5", f"data:image/png;base64,{text}")
    got = client.chat.completions.create(model="tiny", messages=chat, temperature=0, max_tokens=6)
    assert got.choices[0].message.content == alone("<image>\nw5", tmp_path / "upright.png")
    assert got.llava["image_notes"] == ["image 1 was turned upright, as its EXIF orientation 6 says"]


def test_openai_image_under_a_budget_is_answered_as_without_a_server(client, alone, image_file, image_text) -> None:
    chat = message("w5", f"data:image/png;base64,{image_text}")
    create = client.chat.completions.create
    got = create(model="tiny", messages=chat, temperature=0, max_tokens=6, extra_body={"latency_budget": 0.5})
    assert got.choices[0].message.content == alone("<image>\nw5", image_file, latency_budget=0.5)
    budget = got.llava["latency_budget"]
    assert (budget["requested"], budget["granted"], budget["met"]) == (0.5, 0.5, True)
    assert "budget 0.5" in budget["summary"] and budget["heads"] == [8, 16]
    assert budget["predicted_ms"] is None and 0 < budget["measured_ms"] <= got.llava["time_to_first_token_ms"]
    assert got.llava["time_to_first_token_ms"] < got.llava["total_ms"]


def test_openai_fewer_image_tokens_are_read_and_said(client, alone, image_file, image_text) -> None:
    chat = message("w5", f"data:image/png;base64,{image_text}")
    fields = {"image_tokens": "50%", "token_selector": "grid"}
    got = client.chat.completions.create(model="tiny", messages=chat, temperature=0, max_tokens=6, extra_body=fields)
    assert got.choices[0].message.content == alone("<image>\nw5", image_file, **fields)
    assert (got.llava["image_tokens"]["all"], got.llava["image_tokens"]["kept"]) == (4, 2)
    full = client.chat.completions.create(model="tiny", messages=chat, temperature=0, max_tokens=6)
    assert got.usage.prompt_tokens == full.usage.prompt_tokens, "left-out tokens keep their positions"


@pytest.mark.parametrize("include_usage", [False, True])
def test_openai_stream_adds_up_to_the_answer(client, alone, image_file, image_text, include_usage) -> None:
    chat = message("w5 w7", f"data:image/png;base64,{image_text}")
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
    assert "".join(delta.content or "" for delta in deltas) == alone("<image>\nw5 w7", image_file)
    ends = [piece.choices[0].finish_reason for piece in pieces]
    assert ends[-1] == "length" and set(ends[:-1]) == {None}
    assert pieces[-1].llava["latency_budget"]["granted"] == 1 and len({piece.id for piece in pieces}) == 1


def later_word(answer: str) -> str | None:
    """A word that first comes as the third or later; some random models repeat the one they began with."""
    words = answer.split()
    return next((word for word in words[2:] if answer.find(word) > len(words[0])), None)


def test_openai_chat_of_several_turns_ends_at_a_stop_text(client, alone) -> None:
    text = "w5 ASSISTANT: w8 w9</s>USER: {}"
    asked = next(f"w{n}" for n in range(6, 60) if later_word(alone(text.format(f"w{n}"), tokens=8)))
    text = text.format(asked)
    chat = [
        {"role": "user", "content": "w5"},
        {"role": "assistant", "content": "w8 w9"},
        {"role": "user", "content": asked},
    ]
    got = client.chat.completions.create(model="tiny", messages=chat, temperature=0, max_tokens=8)
    full = got.choices[0].message.content
    assert full == alone(text, tokens=8)
    stop = later_word(full)
    cut = client.chat.completions.create(model="tiny", messages=chat, temperature=0, max_tokens=8, stop=[stop])
    assert cut.choices[0].message.content == full[: full.index(stop)].strip()
    assert cut.choices[0].finish_reason == "stop"


def test_openai_stop_of_one_space_ends_after_the_first_word(client, alone) -> None:
    chat = [{"role": "user", "content": "w5"}]
    got = client.chat.completions.create(model="tiny", messages=chat, temperature=0, max_tokens=8, stop=" ")
    assert got.choices[0].message.content == alone("w5", tokens=8).split()[0]


def test_openai_last_assistant_message_is_continued(client, alone) -> None:
    """In some question, as a random model may say the same whatever it has begun with."""
    changed = False
    for asked in ("w5", "w6 w7", "w20", "w30 w31 w32"):
        chat = [{"role": "user", "content": asked}, {"role": "assistant", "content": "w8 w9 "}]
        got = client.chat.completions.create(model="tiny", messages=chat, temperature=0, max_tokens=5)
        assert got.choices[0].message.content == alone(asked, tokens=5, begun=" w8 w9")
        changed = changed or got.choices[0].message.content != alone(asked, tokens=5)
    assert changed


def test_openai_seed_repeats_and_top_p_limits_the_draws(client, alone) -> None:
    def ask(**settings) -> str:
        chat = [{"role": "user", "content": "w5"}]
        got = client.chat.completions.create(model="tiny", messages=chat, max_tokens=8, **settings)
        return got.choices[0].message.content

    drawn = [ask(temperature=2, seed=seed) for seed in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1] and len(set(drawn)) > 1
    assert ask(temperature=2, top_p=0) == alone("w5", tokens=8)


# name: (fields of the request, exception, field at fault, words of the message)
ERRORS = {
    "unknown model": ({"model": "other"}, openai.NotFoundError, "model", "tiny"),
    "bad budget": ({"extra_body": {"latency_budget": 3}}, openai.BadRequestError, None, "(0, 1]"),
    "bad temperature": ({"temperature": 7}, openai.BadRequestError, "temperature", "less than or equal to 2"),
    "time without calibration": (
        {"extra_headers": {"x-slo-ttft-ms": "850"}},
        openai.BadRequestError,
        None,
        "not calibrated",
    ),
    "bad header": ({"extra_headers": {"x-slo-ttft-ms": "soon"}}, openai.BadRequestError, None, "x-slo-ttft-ms"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_openai_errors_are_the_packages_own(client, name) -> None:
    fields, error, param, words = ERRORS[name]
    with pytest.raises(error) as raised:
        client.chat.completions.create(**{"model": "tiny", "messages": message("w5"), **fields})
    assert raised.value.param == param and words in raised.value.message


def test_openai_unknown_model_has_openais_code(client) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="other", messages=message("w5"))
    assert raised.value.code == "model_not_found"


def curl(*arguments) -> str:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    command = ["curl", "--silent", "--show-error", "--no-buffer", "--noproxy", "*", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout


def test_curl_reads_completion_stream_models_and_metrics(served, alone, image_file) -> None:
    json_header = ["-H", "Content-Type: application/json"]
    url = f"data:image/png;base64,{base64.b64encode(image_file.read_bytes()).decode()}"
    body = {"model": "tiny", "messages": message("w5", url), "temperature": 0, "max_tokens": 4}
    chat = f"{served.api.address}/v1/chat/completions"
    completion = json.loads(curl(chat, *json_header, "-d", json.dumps(body)))
    expected = alone("<image>\nw5", image_file, tokens=4)
    assert completion["choices"][0]["message"]["content"] == expected
    events = curl(chat, *json_header, "-d", json.dumps({**body, "stream": True})).split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    deltas = [json.loads(event.removeprefix("data: "))["choices"][0]["delta"] for event in events[:-2]]
    assert "".join(delta.get("content", "") for delta in deltas) == expected
    listed = curl("-X", "POST", f"{served.controller.address}/list_models")
    assert json.loads(listed) == {"models": ["tiny"]}
    assert "adallava:generation_tokens_total" in curl(f"{served.worker.address}/metrics")


@pytest.mark.network
def test_upstreams_test_message_prints_an_answer(served, tmp_path) -> None:
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
