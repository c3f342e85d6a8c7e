"""The vision tower and the language base: a few steps leave folders that load."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import CLIPImageProcessorPil, CLIPVisionModel, LlamaForCausalLM

from llava.model.llama_tokenizer import load_tokenizer
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from playground.shapes import language_base, tower
from playground.shapes.draw import draw
from playground.shapes.scene import COLOURS, SIDE, SIZES, Item, Scene


@pytest.fixture(scope="module")
def tower_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tower")
    tower.train(folder, steps=2, batch=4, learning_rate=1e-3, workers=0)
    return folder


def test_the_tower_is_a_tower_for_llava(tower_folder):
    seen_by = CLIPVisionTower(str(tower_folder), SimpleNamespace(mm_vision_select_layer=-1))
    image = draw(Scene((Item("shape", "star", "red", "large", 16, 16),)))
    pixels = seen_by.image_processor(image, return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, SIDE, SIDE), "nothing is resized or cropped"
    plain = CLIPVisionModel.from_pretrained(tower_folder)(pixels.to(seen_by.dtype), output_hidden_states=True)
    features = seen_by(pixels.to(seen_by.dtype))
    assert features.shape == (1, 36, 128)
    torch.testing.assert_close(features, plain.hidden_states[-1][:, 1:])


def test_pixels_are_the_image(tower_folder):
    processor = CLIPImageProcessorPil.from_pretrained(tower_folder)
    image = draw(Scene((Item("shape", "cross", "green", "small", 80, 20),)))
    pixels = processor(image, return_tensors="pt")["pixel_values"][0]
    mean, std = (torch.tensor(x)[:, None, None] for x in (processor.image_mean, processor.image_std))
    back = (pixels * std + mean) * 255
    flat = torch.tensor(list(image.tobytes())).view(SIDE, SIDE, 3).permute(2, 0, 1)
    torch.testing.assert_close(back, flat.float(), atol=0.01, rtol=0)


def test_a_finished_tower_is_not_trained_again(tower_folder):
    before = (tower_folder / "model.safetensors").read_bytes()
    tower.train(tower_folder, steps=2, batch=4, learning_rate=1e-3, workers=0)
    assert (tower_folder / "model.safetensors").read_bytes() == before
    assert not list(tower_folder.glob("*.part*"))


def test_stopped_tower_training_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(tower, "SAVE_EVERY", 1)
    saves, stops, save = [], [2], tower.save_state

    def stopping(path, step, **parts):
        save(path, step, **parts)
        saves.append(step)
        if step in stops:
            raise KeyboardInterrupt

    monkeypatch.setattr(tower, "save_state", stopping)
    with pytest.raises(KeyboardInterrupt):
        tower.train(tmp_path, steps=4, batch=2, learning_rate=1e-3, workers=0)
    assert not (tmp_path / "model.safetensors").exists(), "not finished"
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    state["model"]["readers.size.bias"] += 5  # a mark that only these weights have
    torch.save(state, tmp_path / "state.pt")
    stops.clear()
    tower.train(tmp_path, steps=4, batch=2, learning_rate=1e-3, workers=0)
    assert saves == [1, 2, 3, 4]
    resumed = torch.load(tmp_path / "state.pt", weights_only=True)["model"]
    for key, weights in state["model"].items():
        torch.testing.assert_close(resumed[key], weights, atol=0.01, rtol=0)  # two steps of at most 1e-3
    assert not torch.equal(resumed["readers.name.weight"], state["model"]["readers.name.weight"])


def test_targets_name_what_is_where():
    scene = Scene(
        (Item("shape", "star", "red", "small", 5, 17), Item("digit", "7", "blue", "large", 95, 95)),
    )
    targets = tower.patch_targets(scene)
    names = {patch: tower.NAMES[i] for patch, i in enumerate(targets["name"].tolist()) if i}
    assert names == {6: "star", 35: "7"}, "second row, first column; last row, last column"
    assert COLOURS[targets["colour"][6]] == "red" and SIZES[targets["size"][35]] == "large"
    assert (targets["colour"] != tower.IGNORED).sum() == (targets["size"] != tower.IGNORED).sum() == 2
    assert targets["row"][35] == targets["column"][35] == 5 and targets["column"][6] == 0


def test_the_language_base_is_a_model_with_its_tokenizer(world, tmp_path, monkeypatch, capsys):
    data = str(world.folder / "conversations.json")
    monkeypatch.setattr(sys, "argv", ["language_base", "--data", data, "--out", str(tmp_path)])
    language_base.main()
    assert "million parameters" in capsys.readouterr().out
    model, tokenizer = LlamaForCausalLM.from_pretrained(tmp_path), load_tokenizer(tmp_path)
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert model.config.num_key_value_heads == model.config.num_attention_heads, "multi-head, as Vicuna"
    ids = tokenizer("What colour is the star?", return_tensors="pt").input_ids
    loss = model(ids, labels=ids).loss.item()
    assert abs(loss - torch.tensor(len(tokenizer)).log().item()) < 1, "it knows nothing yet"
