"""Rows that decode with the model's own forward: what they hold."""

import weakref

import torch

from llava.serve.engine.transformers_rows import TransformersRows


def test_positions_are_those_of_the_rows_caches(loaded) -> None:
    rows, model = TransformersRows(loaded.model), loaded.model
    read = [rows.read(keywords_of(length)) for length in (3, 7)]
    lengths = [length_alone(model, length) for length in (3, 7)]
    assert rows.positions() == sum(lengths)
    for _ in range(3):
        rows.step([row for _, row in read], [5, 6])
    assert rows.positions() == sum(lengths) + 2 * 3
    rows.remove(read[0][1])
    assert rows.positions() == lengths[1] + 3
    rows.step([read[1][1]], [6])
    assert rows.positions() == lengths[1] + 4
    rows.clear()
    assert rows.positions() == 0


def test_rows_in_a_batch_hold_no_other_cache(loaded) -> None:
    rows = TransformersRows(loaded.model)
    read = [rows.read(keywords_of(length))[1] for length in (3, 7)]
    before = [weakref.ref(states) for row in read for pair in row.cache.layers for states in pair]
    assert before
    rows.step(read, [5, 6])
    assert not any(of() is not None for of in before), "the batch has copied them"


def keywords_of(length: int) -> dict:
    """A greedy call on a prompt of so many tokens, by transformers' loop, as of a model that no plug-in decodes."""
    settings = {"do_sample": False, "return_dict_in_generate": True, "pad_token_id": 0, "engine": "transformers"}
    return {"inputs": torch.arange(5, 5 + length)[None], "images": None, **settings}


def length_alone(model, length: int) -> int:
    """Positions in the cache that transformers' own loop leaves of the same prompt."""
    output = model.generate(**keywords_of(length), max_new_tokens=1)
    return output.past_key_values.get_seq_length()
