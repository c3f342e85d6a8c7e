"""Two models that share a replica on a Ray cluster of this machine: each is loaded as it is asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from fixtures.ports import reserved_ports

pytest.importorskip("ray.serve", exc_type=ImportError)
import ray
from ray import serve

from ada.serve.ray.app import Settings, app
from llava.generation import SamplingParams, answer
from llava.model.loaded_model import open_model

pytestmark = pytest.mark.slow  # a cluster takes half a minute to start
WAIT_S = 120
NAMES = ("one", "two")


@pytest.fixture(scope="module")
def folders(make_adaptive_checkpoint) -> dict[str, str]:
    """Two checkpoints of four and six layers, which never end an answer by themselves."""
    sizes = {"eos_token_id": None, "max_position_embeddings": 4096, "max_sequence_length": 4096}
    layers = dict(zip(NAMES, (4, 6), strict=True))
    return {name: str(make_adaptive_checkpoint(num_hidden_layers=count, **sizes)) for name, count in layers.items()}


@pytest.fixture(scope="module")
def client(folders):
    """A client of the API, with one replica that loads one of the two models at a time."""
    flags = [
        f"--model-path {folder} --model-name {name} --device cpu --max-output-tokens 4000"
        for name, folder in folders.items()
    ]
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    with reserved_ports(1) as [port]:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(app(Settings(workers="; ".join(flags), models_per_replica=1)))
        yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=WAIT_S)
        serve.shutdown()
    ray.shutdown()


def ask(client: openai.OpenAI, model: str, tokens: int) -> str:
    messages = [{"role": "user", "content": "w5 w6"}]
    stream = client.chat.completions.create(
        model=model, messages=messages, temperature=0, max_tokens=tokens, stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


def alone(folder: str, tokens: int) -> str:
    loaded = open_model({"model_path": folder, "device": "cpu"})
    chat = loaded.template.copy()
    chat.append_message(chat.roles[0], "w5 w6")
    chat.append_message(chat.roles[1], None)
    sampling = SamplingParams(temperature=0, max_new_tokens=tokens)
    parts = loaded.model, loaded.tokenizer, loaded.image_processor
    return answer(*parts, chat.get_prompt(), sampling=sampling).text


def test_each_model_answers_as_alone_however_they_take_turns(client, folders) -> None:
    assert sorted(model.id for model in client.models.list()) == sorted(NAMES)
    expected = {name: alone(folder, 6) for name, folder in folders.items()}
    assert expected["one"] != expected["two"]
    for name in ("one", "two", "two", "one"):
        assert ask(client, name, 6).strip() == expected[name]


def test_answer_of_a_model_that_is_unloaded_goes_on_to_its_end(client, folders) -> None:
    messages = [{"role": "user", "content": "w5 w6"}]
    stream = client.chat.completions.create(model="one", messages=messages, temperature=0, max_tokens=1500, stream=True)
    begun = next(stream)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(ask, client, "two", 6)
        pieces = [chunk.choices[0].delta.content or "" for chunk in [begun, *stream] if chunk.choices]
        assert other.result().strip() == alone(folders["two"], 6)
    assert len("".join(pieces).split()) >= 1400


def test_models_that_are_asked_for_at_once_are_all_answered(client, folders) -> None:
    names = [*NAMES] * 6
    with ThreadPoolExecutor(len(names)) as pool:
        answers = [*pool.map(lambda name: ask(client, name, 6).strip(), names)]
    expected = {name: alone(folder, 6) for name, folder in folders.items()}
    assert answers == [expected[name] for name in names]
