"""Sizes read from a checkpoint's config."""

import json

from ada.cost.__main__ import parse_arguments, report


def test_config_of_a_language_model_is_enough(tmp_path):
    fields = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4}
    fields |= {"num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 50, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    found = report(parse_arguments(["--model", str(tmp_path), "--prompt-tokens", "20", "--json"]))
    assert found["prefill"]["vision_tower"]["flops"] == 0 and found["layers"] == 4 and found["fits_in_memory"]
    layer = 64 * 64 * 2 + 64 * 16 * 2 + 3 * 64 * 96
    assert found["peak_memory"]["decoder"] == 2 * (4 * layer + 64 * 50), "one table of tied embeddings"
