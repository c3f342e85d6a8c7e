"""A tiny LLaVA: features, spliced inputs, loss, logits and greedy tokens, against upstream's."""

import contextlib
import json
import shutil

import numpy as np
import pytest
import torch

from llava.errors import ImageError, LlavaError
from llava.model import LlavaLlamaForCausalLM

RELATIVE = 1e-4  # float32, of the largest value: other kernels sum in another order


@pytest.fixture(scope="module")
def recorded(golden):
    return json.loads((golden / "multimodal.json").read_text())["cases"]


@pytest.fixture(scope="module")
def arrays(golden):
    with np.load(golden / "multimodal.npz") as logits, np.load(golden / "multimodal_inputs.npz") as inputs:
        return {key: torch.tensor(part[key]) for part in (logits, inputs) for key in part.files}


@pytest.fixture(scope="module")
def model(golden):
    model = LlavaLlamaForCausalLM.from_pretrained(golden / "tiny_llava", dtype=torch.float32)
    model.get_vision_tower().load_model()
    return model.eval()


@contextlib.contextmanager
def settings(model, case, name, arrays):
    """The model under a case's config, and as it was afterwards."""
    tower, kept = model.get_vision_tower(), dict(model.config.__dict__)
    selection = tower.select_layer, tower.select_feature
    for key, value in case.get("config_overrides", {}).items():
        setattr(model.config, key, value)
    if name.startswith("select_"):
        _, layer, feature = name.split("_", 2)
        tower.select_layer, tower.select_feature = int(layer), feature
    if "unpad" in name:
        model.model.image_newline = torch.nn.Parameter(arrays["image_newline"])
    try:
        yield
    finally:
        model.config.__dict__.clear()
        model.config.__dict__.update(kept)
        tower.select_layer, tower.select_feature = selection
        model.model._parameters.pop("image_newline", None)


IMAGES = [(120, 80), (80, 120), (56, 56), (200, 90)]  # (width, height) of the images whose pixels are recorded


def images_of(case, arrays):
    """A case's pixels, found by the shapes and sizes that it states: rows of a batch, single images, or crops."""
    padded, shapes = arrays["pixel_values_pad"], case["images"]
    if shapes is None:
        return None
    if "image_rows" in case:
        return padded[case["image_rows"]]
    if isinstance(shapes[0], int):  # (N, n, 3, S, S)
        return padded[: shapes[0] * shapes[1]].view(shapes)
    images = []
    for number, shape in enumerate(shapes):
        if len(shape) == 3:
            images.append(padded[number])
        elif shape[0] == 1:
            images.append(padded[number : number + 1])
        else:
            images.append(arrays[f"anyres_pixels_{IMAGES.index(tuple(case['image_sizes'][number]))}"])
    assert [list(image.shape) for image in images] == shapes
    return images


def case_named(name, recorded):
    if name not in recorded:
        pytest.skip(f"the folder holds no case {name}")
    return recorded[name]


def tensor(value):
    return None if value is None else torch.tensor(value)


def close(found, expected, mask=None):
    """What stands under padding is nobody's; elsewhere nothing may differ by more than RELATIVE of the largest."""
    keep = torch.ones(found.shape[:2], dtype=torch.bool) if mask is None else tensor(mask).bool()
    difference = (found[keep] - expected[keep]).abs().max()
    assert found.shape == expected.shape
    assert difference <= RELATIVE * expected[keep].abs().max(), difference


def test_features(model, arrays):
    pixels = arrays["pixel_values_pad"]
    close(model.get_vision_tower()(pixels), arrays["vision_features_select-2_patch"])
    with torch.no_grad():
        close(model.encode_images(pixels), arrays["image_features_projected"])


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_cases(model, recorded, arrays, implementation):
    model.set_attn_implementation(implementation)
    comparable = {
        name: case
        for name, case in recorded.items()
        if "prepared" in case and name != "fewer_image_tags_than_images"  # an error here
    }
    assert comparable, "the folder records no case to compare with"
    for name, case in comparable.items():
        with settings(model, case, name, arrays):
            check_case(model, name, case, arrays)


def test_cases_that_the_reference_fails_on(model, recorded, arrays):
    """They are there to be known, not matched: here they are answered, or refused with an error for the user."""
    failing = {name: case for name, case in recorded.items() if "prepared" not in case}
    if not failing:
        pytest.skip("the folder records no such case")
    for name, case in failing.items():
        ids, mask, labels = (tensor(case.get(key)) for key in ("input_ids", "attention_mask", "labels"))
        images, sizes = images_of({"images": None, **case}, arrays), case.get("image_sizes")
        with settings(model, case, name, arrays), torch.no_grad(), contextlib.suppress(LlavaError):
            model(ids, attention_mask=mask, labels=labels, images=images, image_sizes=sizes)


def check_case(model, name, case, arrays):
    ids, mask, labels = (tensor(case[key]) for key in ("input_ids", "attention_mask", "labels"))
    images, sizes, prepared = images_of(case, arrays), case["image_sizes"], case["prepared"]
    with torch.no_grad():
        _, positions, new_mask, _, embeds, new_labels = model.prepare_inputs_labels_for_multimodal(
            ids, None, mask, None, labels, images, sizes
        )
        output = model(ids, attention_mask=mask, labels=labels, images=images, image_sizes=sizes)
    assert positions is None
    for found, key in ((new_mask, "attention_mask"), (new_labels, "labels")):
        assert (None if found is None else found.tolist()) == prepared[key], (name, key)
    if prepared["inputs_embeds_shape"] is None:
        assert embeds is None
    else:
        close(embeds, arrays[f"{name}.inputs_embeds"])
    close(output.logits, arrays[f"{name}.logits"], prepared["attention_mask"])
    if case["loss"] is not None:
        assert output.loss.item() == pytest.approx(float(case["loss"]), rel=RELATIVE, nan_ok=True)
    if case.get("greedy"):
        # The reference puts one <s> before the new tokens; transformers 5 returns these alone.
        expected = [row[1:] for row in case["greedy"]["output_ids"]]
        found = model.generate(
            ids,
            images=images,
            image_sizes=sizes,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=case["greedy"]["max_new_tokens"],
        )
        assert found.tolist() == expected, name


def test_fewer_tags_than_images(model, recorded, arrays):
    """Upstream ignores the extra image."""
    case = case_named("fewer_image_tags_than_images", recorded)
    images = images_of(case, arrays)
    with pytest.raises(ImageError, match=r"1 image tag.*2 image"):
        model(tensor(case["input_ids"]), images=images)


def test_right_padding_answers_as_left(model, recorded, arrays):
    """Upstream generates from a padding position there; here each row answers as it does alone."""
    case = case_named("batch2_left", recorded)
    ids, mask = tensor(case["input_ids"]), tensor(case["attention_mask"])
    shift = int((mask[1] == 0).sum())
    right_ids, right_mask = ids.clone(), mask.clone()
    right_ids[1], right_mask[1] = ids[1].roll(-shift), mask[1].roll(-shift)
    found = model.generate(
        right_ids,
        images=images_of(case, arrays),
        attention_mask=right_mask,
        do_sample=False,
        max_new_tokens=case["greedy"]["max_new_tokens"],
    )
    assert found.tolist() == [row[1:] for row in case["greedy"]["output_ids"]]


def test_save_and_load(golden, model, recorded, arrays, tmp_path):
    """A saved model has upstream's keys, and describes its own tower: it answers from anywhere."""
    from safetensors import safe_open

    model.save_pretrained(tmp_path / "saved")
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    with (
        safe_open(golden / "tiny_llava" / "model.safetensors", "pt") as before,
        safe_open(tmp_path / "moved" / "model.safetensors", "pt") as after,
    ):
        assert set(after.keys()) == set(before.keys())
        assert all(torch.equal(before.get_tensor(key), after.get_tensor(key)) for key in before.keys())  # noqa: SIM118
    old = json.loads((golden / "tiny_llava" / "config.json").read_text())
    new = json.loads((tmp_path / "moved" / "config.json").read_text())
    assert {key: new.get(key) for key in old if key != "transformers_version"} == {
        key: value for key, value in old.items() if key != "transformers_version"
    }
    again = LlavaLlamaForCausalLM.from_pretrained(tmp_path / "moved").eval()
    again.get_vision_tower().load_model()
    name = next(name for name, case in recorded.items() if "prepared" in case and not case["config_overrides"])
    check_case(again, name, recorded[name], arrays)
