"""Rows that join and leave: each is decoded as alone, whatever the others are."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ada.engine.engine_rows import EngineRows
from ada.engine.kv_slots import KVSlots
from ada.engine.prefill import prefill
from ada.engine.serving import EngineRowDecoder

IMAGE = -200


@pytest.fixture(scope="module", params=["H", "L"])
def model(request, make_llava):
    return make_llava(request.param)


def keywords_of(row: int, pixels: torch.Tensor) -> dict[str, Any]:
    """Prompts of different lengths, with and without an image, budgets and amounts of image tokens."""
    ids = [1, *range(5, 6 + row % 4), *([IMAGE] if row % 3 else []), 7]
    tokens = ("all", "2", "all/1", "3/2")[row % 4] if row % 3 else "all"
    settings = {"latency_budget": (1.0, 0.9, 0.7, 0.6, 0.5, None)[row % 6], "image_tokens": tokens}
    images = pixels[row % 4 : row % 4 + 1] if row % 3 else None
    greedy = {"do_sample": False, "return_dict_in_generate": True, "token_selector": "fastv", "pad_token_id": 0}
    return {"inputs": torch.tensor([ids]), "images": images, **settings, **greedy}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.lists(st.sampled_from(["join", "step", "leave"]), min_size=8, max_size=40), seed=st.integers(0, 99))
def test_each_row_gets_the_tokens_that_it_gets_alone(model, pixels, events, seed) -> None:
    decoder, running, done, count = EngineRowDecoder(model, 4), [], [], seed
    for event in events:
        if event == "join" and len(running) < 4:
            output, row = decoder.read(keywords_of(count, pixels))
            running.append((count, row, output.sequences[0].tolist()))
            count += 1
        elif event == "leave" and running:
            number, row, tokens = running.pop(seed % len(running))
            decoder.remove(row)
            done.append((number, tokens))
        elif running:
            logits = decoder.step([row for _, row, _ in running], [tokens[-1] for *_, tokens in running])
            for (*_, tokens), own in zip(running, logits, strict=True):
                tokens.append(int(own.argmax()))
    for number, tokens in [*done, *((number, tokens) for number, _, tokens in running)]:
        alone = model.generate(**keywords_of(number, pixels), max_new_tokens=len(tokens), engine="transformers")
        assert alone.sequences[0].tolist() == tokens


def test_prompt_that_fails_leaves_the_other_rows_as_they_were(model, pixels) -> None:
    decoder = EngineRowDecoder(model, 4)
    output, row = decoder.read(keywords_of(1, pixels))

    def fail(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("nothing can be drawn")

    with pytest.raises(RuntimeError, match="nothing can be drawn"):
        decoder.read({**keywords_of(2, pixels), "logits_processor": [fail]})
    token = output.sequences[0].tolist()
    step = decoder.step([row], token)
    alone = model.generate(**keywords_of(1, pixels), max_new_tokens=2, engine="transformers")
    assert int(step[0].argmax()) == int(alone.sequences[0, 1])


def test_clear_lets_all_rows_leave(model, pixels) -> None:
    decoder = EngineRowDecoder(model, 4)
    decoder.read(keywords_of(1, pixels))
    decoder.clear()
    assert decoder.rows.rows == []
    _, row = decoder.read(keywords_of(2, pixels))
    assert row.slot == 0


def test_slots_of_a_half_precision_model_on_a_cpu_are_float32(make_llava, pixels) -> None:
    model = make_llava("H").to(torch.bfloat16)
    decoder = EngineRowDecoder(model, 2)
    output, row = decoder.read(keywords_of(1, pixels.to(torch.bfloat16)))
    assert {states.dtype for pair in decoder.rows.slots.layers for states in pair} == {torch.float32}
    assert decoder.step([row], output.sequences[0].tolist()).dtype == torch.float32


def filled_columns(decoder: EngineRowDecoder) -> int:
    """Columns of the slots' memory that are not zeros, of each row's longest layer."""
    layers = decoder.rows.slots.layers
    if not decoder.rows.rows:
        return 0
    written = torch.stack([(keys != 0).any(dim=3).any(dim=1) for keys, _ in layers])  # (layers, slots, capacity)
    return sum(int(written[:, row.slot].sum(dim=-1).max()) for row in decoder.rows.rows)


def test_positions_are_the_columns_that_the_slots_hold(model, pixels) -> None:
    decoder = EngineRowDecoder(model, 4)
    assert decoder.positions() == 0
    read = [decoder.read(keywords_of(number, pixels)) for number in (1, 4, 3)]
    assert decoder.positions() == filled_columns(decoder) > 3
    rows, tokens = [row for _, row in read], [int(output.sequences[0, -1]) for output, _ in read]
    before = decoder.positions()
    decoder.step(rows, tokens)
    decoder.step(rows, tokens)
    assert decoder.positions() == filled_columns(decoder) == before + 6
    decoder.remove(rows[1])
    assert decoder.positions() == filled_columns(decoder) < before
    decoder.clear()
    assert decoder.positions() == 0


def test_positions_of_image_tokens_that_were_left_out_are_not_counted(model, pixels) -> None:
    held = []
    for tokens in ("all", "2"):
        decoder, fewer = EngineRowDecoder(model, 1), {"image_tokens": tokens, "token_selector": "grid"}
        decoder.read({**keywords_of(1, pixels), **fewer, "latency_budget": 1.0})
        held.append(decoder.positions())
    image_tokens = model.get_vision_tower().num_patches
    assert held[0] - held[1] == image_tokens - 2


@pytest.mark.parametrize("row", [1, 2, 5])
@torch.no_grad()
def test_prompt_whose_layers_are_cut_for_it_alone_reads_as_from_the_cache(model, pixels, row) -> None:
    """As on a GPU, where no narrow layer is kept."""
    ids = keywords_of(row, pixels)["inputs"]
    batch = model.embed(ids, images=pixels[:1] if IMAGE in ids else None)
    engine = EngineRows(model, 1, model.get_input_embeddings().weight)
    found, held, cut = [], [], Mock(wraps=engine.decoder.cut)
    for once in (cut, None):
        model.narrow_cache.clear()
        prompt, execution = model.begin(batch, torch.tensor([model.units.tunable // 2]))
        _, logits = prefill(engine.decoder, engine.slots, 0, engine.table, prompt, execution, once)
        found.append(logits)
        held.append(model.narrow_cache.bytes > 0)
    assert torch.equal(*found)
    narrow = model.units.kind == "H"  # of the others each layer runs whole or not at all
    assert cut.called == narrow and held == [False, narrow]


@pytest.mark.parametrize("first", ["made", "grown"])
def test_slots_made_or_grown_in_inference_mode_serve_calls_outside_of_it(first) -> None:
    """On a GPU a model's rows stay between calls, and programs call in inference mode or not."""
    like = torch.zeros(0)
    slots = KVSlots(2, 2, 2, 4, like)
    if first == "grown":
        slots.reach(3)
    with torch.inference_mode():
        slots.reach(300)
    with torch.no_grad():
        slots.write_prompt(0, 0, torch.ones(2, 2, 4), torch.ones(2, 2, 4))
        slots.move(0, 1)
    assert slots.layers[0][0][1, :, :2].eq(1).all() and not slots.layers[0][0].is_inference()


@given(steps=st.lists(st.integers(1, 3000), min_size=1, max_size=8), longest=st.integers(1, 3000))
def test_slots_grow_by_half_and_no_further_than_a_sequence_may_be(steps, longest) -> None:
    slots, limit = KVSlots(1, 1, 1, 1, torch.zeros(0), longest), -(-longest // 256) * 256
    for columns in steps:
        before = slots.capacity
        slots.reach(columns)
        assert slots.capacity >= columns and slots.capacity % 256 == 0
        if slots.capacity != before:
            assert min(int(1.5 * before), longest) <= slots.capacity <= max(1.5 * before + 255, columns + 255)
            assert slots.capacity <= max(limit, columns + 255)
