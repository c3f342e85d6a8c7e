"""Sizes read from a checkpoint's config."""

import json

import pytest

from ada.cost.__main__ import main, parse_arguments, report
from ada.cost.sizes import sizes_of
from llava.model.builder import load_pretrained_model


def test_config_of_a_language_model_is_enough(tmp_path):
    fields = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4}
    fields |= {"num_attention_heads": 8, "num_key_value_heads": 2, "vocab_size": 50, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    found = report(parse_arguments(["--model", str(tmp_path), "--prompt-tokens", "20", "--json"]))
    assert found["prefill"]["vision_tower"]["flops"] == 0 and found["layers"] == 4 and found["fits_in_memory"]
    layer = 64 * 64 * 2 + 64 * 16 * 2 + 3 * 64 * 96
    assert found["peak_memory"]["decoder"] == 2 * (4 * layer + 64 * 50), "one table of tied embeddings"


LANGUAGE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "vocab_size": 50,
}


@pytest.fixture
def folder_of(tmp_path):
    """``folder_of(**fields)``: a folder with the config of a decoder of eight heads, with some fields added."""

    def write(**fields) -> str:
        config = {"model_type": "ada_llava_llama", **LANGUAGE, **fields}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return str(tmp_path)

    return write


@pytest.mark.parametrize("rank", [0, -2, 3, 16])
def test_rank_that_no_load_takes_is_a_user_error(folder_of, rank, capsys):
    path = folder_of(scheduler_type="H", scheduler_rank=rank, num_prefix_layers=2)
    assert main(["--model", path, "--prompt-tokens", "20"]) == 2
    assert f"scheduler_rank is {rank}; expected a divisor of 8" in capsys.readouterr().err


def test_rank_that_no_training_chose_is_one_that_fits(folder_of):
    layers = folder_of(scheduler_type="L", scheduler_rank=0, num_prefix_layers=2)
    assert sizes_of(layers).units.per_layer == 1 and sizes_of(layers, "H").units.rank == 4
    assert sizes_of(folder_of(num_key_value_heads=2)).units.rank == 2, "no scheduler: 8, the default, does not fit"


@pytest.mark.parametrize("siglip", [False, True])
@pytest.mark.parametrize("feature", ["patch", "cls_patch"])
def test_image_has_the_positions_that_the_loaded_model_counts(make_checkpoint, siglip, feature):
    path = str(make_checkpoint(siglip=siglip, mm_vision_select_feature=feature))
    _, model, _, _ = load_pretrained_model(path, None, "tiny", device="cpu")
    assert sizes_of(path).image_tokens == model.max_image_tokens((16, 16))


def test_images_that_are_cut_into_crops_are_refused_where_they_count(make_checkpoint, capsys):
    grid = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[16, 32], [32, 16]]}
    path = str(make_checkpoint(mm_patch_merge_type="spatial_unpad", **grid))
    flags = ["--model", path, "--prompt-tokens", "40", "--json"]
    for more in ([], ["--memory", "--image-tokens", "50%"]):
        assert main([*flags, *more]) == 2
        said = capsys.readouterr().err
        assert "--images is 1" in said and "image_aspect_ratio 'anyres'" in said and "expected 0" in said
    assert main([*flags, "--images", "0"]) == 0
    found = json.loads(capsys.readouterr().out)
    plain = ["--model", str(make_checkpoint()), "--prompt-tokens", "40", "--images", "0", "--json"]
    assert main(plain) == 0
    assert found["prefill"] == json.loads(capsys.readouterr().out)["prefill"], "the decoder is the same"
    assert main([*flags, "--memory"]) == 0, "goes by the positions of the prompt alone"
