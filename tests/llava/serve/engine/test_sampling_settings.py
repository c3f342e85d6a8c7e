"""Settings of one request, in both engines: against transformers' own Llama, and against definitions."""

import threading

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llava.generation import SamplingParams, generation_inputs
from llava.mm_utils import load_image
from llava.model.loaded_model import open_model
from llava.serve.engine.batch_engine import BatchEngine
from llava.serve.engine.policy import ServingPolicy
from llava.serve.engine.request import EngineRequest, Finished, GenerationRequest
from llava.serve.engine.request_queue import RequestQueue
from llava.serve.engine.threads_engine import ThreadsEngine

WAIT_S = 120
PROMPT = "A chat . USER: w5 w6 w7 w8 w9 ASSISTANT:"
TOKENS = 24


@pytest.fixture(scope="module")
def model(make_checkpoint):
    """A tiny LLaVA that ends its greedy answer to ``PROMPT`` with the sixth token."""
    loaded = open_model({"model_path": str(make_checkpoint(eos_token_id=None)), "model_name": "tiny", "device": "cpu"})
    ids = ask(ThreadsEngine, loaded).answer.token_ids
    end = next(token for at, token in enumerate(ids) if at >= 3 and token not in ids[:at])
    loaded.model.generation_config.eos_token_id = end
    return loaded


@pytest.fixture(scope="module")
def plain(model):
    """Transformers' own Llama with the same weights, which reads token ids and so knows the prompt's."""
    fields = {**model.model.config.to_dict(), "model_type": "llama"}
    config = LlamaConfig(**{name: value for name, value in fields.items() if name in LlamaConfig().to_dict()})
    decoder = LlamaForCausalLM(config).eval()
    missing, _ = decoder.load_state_dict(model.model.state_dict(), strict=False)
    assert not missing
    decoder.generation_config.eos_token_id = model.model.generation_config.eos_token_id
    decoder.generation_config.pad_token_id = 0
    return decoder


def ask(engine_type, model, prompt=PROMPT, images=(), stop=(), neighbours=0, **settings) -> Finished:
    """The answer of an engine that may have other requests at the same time."""
    queue = RequestQueue(1 + neighbours, 100)
    engine = engine_type(model, queue, ServingPolicy())
    requests = []
    for number in range(1 + neighbours):
        sampling = SamplingParams(**{"max_new_tokens": TOKENS, **(settings if number == 0 else {"ignore_eos": True})})
        generation = GenerationRequest(
            prompt, tuple(images), sampling, tuple(stop) if number == 0 else (), {}, 10, prompt
        )
        request = EngineRequest(generation, str(number))
        request.done = threading.Event()
        request.wake = lambda request=request: request.outcome is not None and request.done.set()
        queue.put(request)
        requests.append(request)
    engine.start()
    for request in requests:
        assert request.done.wait(WAIT_S), "no outcome"
        assert isinstance(request.outcome, Finished), request.outcome
    queue.close()
    assert engine.join(WAIT_S)
    return requests[0].outcome


ENGINES = {"threads": (ThreadsEngine, 0), "batch": (BatchEngine, 0), "shared batch": (BatchEngine, 2)}
# name: (our settings, those of transformers' generate)
SAME = {
    "nothing": ({}, {}),
    "repetition penalty": ({"repetition_penalty": 1.3}, {"repetition_penalty": 1.3}),
    "repetition reward": ({"repetition_penalty": 0.5, "ignore_eos": True}, {"repetition_penalty": 0.5, "eos": None}),
    "neutral penalty": ({"repetition_penalty": 1.0}, {}),
    "minimum": ({"min_tokens": 12}, {"min_new_tokens": 12}),
    "minimum that is the maximum": ({"min_tokens": TOKENS}, {"min_new_tokens": TOKENS}),
    "minimum and penalty": (
        {"min_tokens": 9, "repetition_penalty": 1.1},
        {"min_new_tokens": 9, "repetition_penalty": 1.1},
    ),
    "end token ignored": ({"ignore_eos": True}, {"eos": None}),
    "end token ignored, penalty": (
        {"ignore_eos": True, "repetition_penalty": 1.5},
        {"repetition_penalty": 1.5, "eos": None},
    ),
    "one token to draw from": ({"temperature": 2.0, "seed": 1, "top_k": 1}, {}),
    "only the best share": ({"temperature": 2.0, "seed": 1, "min_p": 1.0}, {}),
    "drawn under a penalty": (
        {"temperature": 2.0, "seed": 1, "top_k": 1, "repetition_penalty": 1.4},
        {"repetition_penalty": 1.4},
    ),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", SAME)
def test_engine_answers_as_transformers_with_the_same_settings(model, plain, engine, name) -> None:
    ours, theirs = SAME[name]
    keywords = dict(theirs)
    if "eos" in keywords:
        keywords["eos_token_id"] = keywords.pop("eos")
    ids = torch.tensor([model.tokenizer(PROMPT).input_ids])
    mask = torch.ones_like(ids)
    output = plain.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=TOKENS, **keywords)
    expected = output[0, ids.shape[1] :].tolist()
    engine_type, neighbours = ENGINES[engine]
    got = ask(engine_type, model, neighbours=neighbours, **ours)
    assert got.answer.token_ids == expected
    ends = {plain.generation_config.eos_token_id} if not ours.get("ignore_eos") else set()
    assert got.finish_reason == ("stop" if expected[-1] in ends else "length")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("frequency", "presence"), [(1.5, 0.0), (0.0, 2.0), (0.7, -1.0)])
def test_engine_counts_tokens_of_the_answer_for_frequency_and_presence(
    model, plain, engine, frequency, presence
) -> None:
    ids, expected = model.tokenizer(PROMPT).input_ids, []
    for _ in range(TOKENS):
        scores = plain(torch.tensor([ids + expected])).logits[0, -1].tolist()
        for token in set(expected):
            scores[token] -= frequency * expected.count(token) + presence
        expected.append(scores.index(max(scores)))
    engine_type, neighbours = ENGINES[engine]
    settings = {"frequency_penalty": frequency, "presence_penalty": presence, "ignore_eos": True}
    assert ask(engine_type, model, neighbours=neighbours, **settings).answer.token_ids == expected


def test_engines_penalize_the_text_of_a_prompt_with_an_image_alike(model, image_file) -> None:
    """The prompt's words count, the image's positions do not: against a loop over the model's own logits."""
    prompt, image = f"<image>\n{PROMPT}", load_image(image_file)
    inputs = generation_inputs(model.model, model.tokenizer, model.image_processor, prompt, [image], {})
    known = {token for token in inputs["inputs"][0].tolist() if token >= 0}
    expected: list[int] = []
    for _ in range(8):
        ids = torch.cat([inputs["inputs"], torch.tensor([expected], dtype=torch.long)], dim=1)
        output = model.model(input_ids=ids, images=inputs["images"], image_sizes=inputs["image_sizes"])
        scores = output.logits[0, -1].tolist()
        for token in known | set(expected):
            scores[token] = scores[token] * 1.3 if scores[token] < 0 else scores[token] / 1.3
        expected.append(scores.index(max(scores)))
    settings = {"repetition_penalty": 1.3, "ignore_eos": True, "max_new_tokens": 8}
    for engine_type, neighbours in ENGINES.values():
        got = ask(engine_type, model, prompt, [image], neighbours=neighbours, **settings)
        assert got.answer.token_ids == expected


@pytest.mark.parametrize("settings", [{"top_k": 5, "min_p": 0.05}, {"top_k": 0}, {"min_p": 0.3, "min_tokens": 20}])
def test_engines_draw_the_same_tokens_for_a_seed(model, settings) -> None:
    settings = {"temperature": 1.3, "seed": 7, "top_p": 0.9, **settings}
    answers = [ask(kind, model, neighbours=count, **settings) for kind, count in ENGINES.values()]
    assert len({tuple(one.answer.token_ids) for one in answers}) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_stop_text_waits_for_the_minimum(model, engine) -> None:
    engine_type, neighbours = ENGINES[engine]
    text = ask(engine_type, model, neighbours=neighbours, ignore_eos=True).text
    word = text.split()[1]
    at_once = ask(engine_type, model, neighbours=neighbours, ignore_eos=True, stop=[word])
    assert len(at_once.answer.token_ids) == 2 and at_once.finish_reason == "stop"
    later = ask(engine_type, model, neighbours=neighbours, ignore_eos=True, stop=[word], min_tokens=10)
    assert len(later.answer.token_ids) > 10 and word in later.text.split()[:10]
    assert later.answer.token_ids[:2] == at_once.answer.token_ids


@pytest.mark.parametrize("engine", ENGINES)
def test_engine_end_token_as_a_stop_text_is_ignored_with_the_others(model, engine) -> None:
    """Clients send the template's separator as a stop text, which is the end token's."""
    engine_type, neighbours = ENGINES[engine]
    model.model.generation_config.eos_token_id, end = None, model.model.generation_config.eos_token_id
    try:
        for seed in range(50):
            drawn = {"neighbours": neighbours, "temperature": 9.0, "seed": seed}
            ids = ask(engine_type, model, **drawn).answer.token_ids
            if model.tokenizer.eos_token_id in ids[:-1]:
                break
        stopped = ask(engine_type, model, stop=["</s>"], **drawn)
        assert stopped.answer.token_ids == ids[: ids.index(model.tokenizer.eos_token_id) + 1]
        assert stopped.finish_reason == "stop" and len(ids) == TOKENS
        assert ask(engine_type, model, stop=["</s>"], ignore_eos=True, **drawn).answer.token_ids == ids
    finally:
        model.model.generation_config.eos_token_id = end
