"""The application on a Ray cluster of this machine: two replicas, which are killed while they answer."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import psutil
import pytest
from fixtures.ports import reserved_ports

pytest.importorskip("ray.serve", exc_type=ImportError)
import ray
from ray import serve

from ada.serve.ray.app import Settings, app

pytestmark = pytest.mark.slow  # a cluster takes half a minute to start
WAIT_S = 120


@pytest.fixture(scope="module")
def client(make_adaptive_checkpoint):
    """A client of the API, with two replicas of a model that never ends an answer by itself."""
    folder = make_adaptive_checkpoint(eos_token_id=None, max_position_embeddings=4096, max_sequence_length=4096)
    flags = f"--model-path {folder} --model-name tiny --device cpu --max-output-tokens 4000"
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    with reserved_ports(1) as [port]:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app(Settings(workers=flags, min_replicas=2, max_replicas=2)))
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=WAIT_S)
        serve.shutdown()
    ray.shutdown()


def ask(client: openai.OpenAI, tokens: int = 6, **fields) -> str:
    messages = [{"role": "user", "content": "w5 w6"}]
    reply = client.chat.completions.create(
        model="tiny", messages=messages, temperature=0, max_tokens=tokens, extra_body=fields
    )
    return reply.choices[0].message.content


def replicas() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [process for process in found if "".join(process.cmdline()[:1]).startswith("ray::ServeReplica:default:tiny")]


def wait_until(condition) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_answers_stream_and_are_the_same_from_every_replica(client) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    with ThreadPoolExecutor(8) as pool:
        texts = set(pool.map(lambda _: ask(client), range(16)))
    assert len(texts) == 1
    messages = [{"role": "user", "content": "w5 w6"}]
    stream = client.chat.completions.create(model="tiny", messages=messages, temperature=0, max_tokens=6, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len(pieces) > 2 and {"".join(pieces)} == texts


def test_bad_requests_and_promises_without_calibration_are_refused(client) -> None:
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "w5"}], temperature=-1)
    with pytest.raises(openai.NotFoundError, match="tiny"):
        client.chat.completions.create(model="other", messages=[{"role": "user", "content": "w5"}])
    with pytest.raises(openai.BadRequestError, match="calibrate"):
        ask(client, latency_budget="ttft=1s")


def test_killed_replica_ends_its_answer_with_an_error_and_comes_back(client) -> None:
    wait_until(lambda: len(replicas()) == 2)
    before = {process.pid for process in replicas()}

    begun = threading.Barrier(9)

    def outcome(_: int) -> str:
        messages = [{"role": "user", "content": "w5 w6"}]
        stream = client.chat.completions.create(
            model="tiny", messages=messages, temperature=0, max_tokens=2000, stream=True
        )
        text = next(stream).choices[0].delta.content or ""
        begun.wait(WAIT_S)
        try:
            return text + "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        except openai.APIError as error:
            return f"error: {error.message}"

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(outcome, number) for number in range(8)]
        begun.wait(WAIT_S)
        os.kill(min(before), signal.SIGKILL)
        outcomes = [answer.result() for answer in answers]
    lost = [text for text in outcomes if text.startswith("error")]
    assert lost and all("the model's replica was lost" in text for text in lost)
    assert len({text for text in outcomes if text not in lost}) == 1, "the others are answered"
    wait_until(lambda: len(replicas()) == 2 and {process.pid for process in replicas()} != before)
    assert ask(client)
