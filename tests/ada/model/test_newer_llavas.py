"""LLaVA-OneVision and SigLIP towers under budgets: untrained plans, a scheduler, and what an answer reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.flop_counting import counted
from PIL import Image

from ada.config import AdaLlavaQwenConfig
from ada.cost.__main__ import parse_arguments, report
from ada.model.families import AdaLlavaQwenForCausalLM
from llava.errors import CheckpointError, OptionError
from llava.generation import SamplingParams, answer
from llava.mm_utils import process_images
from llava.model.checkpoint.folder import open_checkpoint
from llava.model.checkpoint.read_model import read_fields
from llava.model.convert import convert
from llava.model.loaded_model import open_model
from tests.fixtures.hub_llavas import IMAGE, write_hub_llava

SIZES = [(64, 64), (90, 20), (10, 90)]  # width, height
PROMPT = [1, -200, 7, 5, 17]


@pytest.fixture(scope="module", params=["hub", "llava"])
def checkpoint(request, tmp_path_factory) -> tuple[Path, Any, Any]:
    """A OneVision in either layout; transformers' model, and its image processor."""
    folder = tmp_path_factory.mktemp("onevision")
    made = write_hub_llava("onevision-4", folder / "hub")
    if request.param == "llava":
        convert(str(folder / "hub"), folder / "llava")
    return folder / request.param, *made


def opened(folder: Path, **options: Any) -> Any:
    return open_model({"model_path": str(folder), "device": "cpu", **options})


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.effect_noise(size, 90).convert("RGB")


def test_a_full_budget_answers_as_transformers_and_half_a_budget_within_it(checkpoint) -> None:
    folder, theirs, image_processor = checkpoint
    loaded = opened(folder, latency_budget="0.5", planner="even")
    assert loaded.template.sep == "<|im_end|>" and loaded.conv_mode == "qwen_1_5"
    for size in SIZES:
        image = noise(size)
        pixels = process_images([image], loaded.image_processor, loaded.model.config)
        given = {"images": pixels, "image_sizes": [size]}
        with torch.no_grad():
            found = loaded.model(torch.tensor([PROMPT]), latency_budget=1.0, planner="even", **given).logits
            ids = [1, *[IMAGE] * loaded.image_positions(size), *PROMPT[2:]]
            expected = theirs(torch.tensor([ids]), **image_processor([image], return_tensors="pt")).logits
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        given = answer(
            loaded.model,
            loaded.tokenizer,
            loaded.image_processor,
            "<image> w7",
            [image],
            sampling=SamplingParams(max_new_tokens=2),
            options={"latency_budget": "0.5", "planner": "even", **loaded.options},
        )
        assert given.metadata["granted"] <= 0.5


@torch.no_grad()
def test_operations_are_those_that_torch_counts(checkpoint) -> None:
    folder, _, _ = checkpoint
    loaded = opened(folder, latency_budget="0.5", planner="even")
    for size in SIZES:
        pixels = process_images([noise(size)], loaded.image_processor, loaded.model.config)
        settings = {"latency_budget": 0.5, "planner": "even", "max_new_tokens": 1, "return_dict_in_generate": True}
        given = {"images": pixels, "image_sizes": [size], **settings}
        count, out = counted(lambda given=given: loaded.model.generate(torch.tensor([PROMPT]), **given))
        assert out.report.num_images == len(pixels[0])
        assert sum(out.report.prefill_flops.values()) == pytest.approx(count, rel=1e-3)


def test_cost_of_a_checkpoint_in_either_layout(checkpoint) -> None:
    folder, theirs, _ = checkpoint
    """Of its decoder: how many crops an image has depends on its size."""
    arguments = ["--model", str(folder), "--prompt-tokens", "40", "--images"]
    found = report(parse_arguments([*arguments, "0", "--json"]))
    with torch.no_grad():
        count, _ = counted(lambda: theirs.model.language_model(torch.ones(1, 40, dtype=torch.long)))
    flops = {part: counts["flops"] for part, counts in found["prefill"].items()}
    assert flops["prefix"] + flops["tunable"] == pytest.approx(count, rel=1e-3) and not flops["vision_tower"]
    with pytest.raises(OptionError, match=r"--images is 1, .*anyres_max_4"):
        report(parse_arguments([*arguments, "1"]))


def test_a_scheduler_is_saved_read_and_not_convertible(checkpoint, tmp_path) -> None:
    folder, _, _ = checkpoint
    plain = opened(folder)
    fields = {**read_fields(open_checkpoint(str(folder))), "model_type": AdaLlavaQwenConfig.model_type}
    grid = {"scheduler_type": "H", "num_prefix_layers": 1, "scheduler_rank": 1}
    torch.manual_seed(1)
    model = AdaLlavaQwenForCausalLM(AdaLlavaQwenConfig.from_dict({**fields, **grid}))
    model.load_state_dict(plain.model.state_dict(), strict=False)
    model.get_model().vision_tower = plain.model.get_vision_tower()
    model.save_pretrained(tmp_path / "adaptive")
    plain.tokenizer.save_pretrained(tmp_path / "adaptive")
    loaded = opened(tmp_path / "adaptive", latency_budget="0.75")
    size = SIZES[0]
    pixels = process_images([noise(size)], loaded.image_processor, loaded.model.config)
    out = loaded.model.generate(
        torch.tensor([PROMPT]),
        images=pixels,
        image_sizes=[size],
        latency_budget=0.75,
        max_new_tokens=2,
        return_dict_in_generate=True,
    )
    assert out.execution_plan.share <= 0.75
    assert out.report.prompt_tokens == len(PROMPT) - 1 + loaded.image_positions(size) + 1, "and the latency token"
    with pytest.raises(CheckpointError, match="no scheduler"):
        convert(str(tmp_path / "adaptive"), tmp_path / "hub")
