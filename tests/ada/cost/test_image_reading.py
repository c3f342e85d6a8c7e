"""What an estimate reads of images: the operations are those of a real model's report, under every selector."""

import json
from itertools import pairwise

import pytest
import torch
from transformers import SiglipVisionConfig

from ada.cost.__main__ import main
from ada.cost.estimate import estimate
from ada.cost.hardware import HARDWARE
from ada.cost.image_reading import prompt_reading
from ada.cost.sizes import Sizes
from ada.image_tokens.amount import ImageTokens
from ada.image_tokens.late_selectors import LATE_SELECTORS
from ada.image_tokens.selectors import SELECTORS
from llava.errors import OptionError

IMAGE = -200
PROMPT = torch.tensor([[IMAGE, 1, 17, 33, 60, IMAGE]])
SETTINGS = {"max_new_tokens": 1, "do_sample": False, "return_dict_in_generate": True}


def sizes_of_model(model) -> Sizes:
    tower = model.get_vision_tower()
    projector = model.get_model().mm_projector
    return Sizes(model.config, model.units, tower.config, tower.layers_run, tower.crops_per_image, projector)


def reported(model, pixels, **call):
    out = model.generate(PROMPT, images=pixels[:2], **call, **SETTINGS)
    return out.report, out.execution_plan


def all_positions(report) -> int:
    """Positions of the prompt with all tokens of its images."""
    return report.prompt_tokens + sum(report.image_tokens.all) - sum(report.image_tokens.front)


AMOUNTS = ["all", "50%", "3/2", "25% shared", "all/50%", 1]
WAYS = [
    (selector, amount)
    for selector in (*SELECTORS, *LATE_SELECTORS, "divprune/learned")
    for amount in AMOUNTS
    if not (selector.startswith("prumerge") and str(amount).startswith("all"))  # as many as the image has outliers
]


@pytest.mark.parametrize(("selector", "amount"), WAYS)
def test_operations_are_those_that_a_model_reports(make_llava, pixels, selector, amount) -> None:
    model = make_llava("H", layers=6, prefix=2, token_scorer_layer=3)
    report, plan = reported(model, pixels, latency_budget=0.7, image_tokens=amount, token_selector=selector)
    sizes = sizes_of_model(model)
    full = all_positions(report)
    read = prompt_reading(sizes, full, 2, ImageTokens.parse(amount), selector)
    assert read.images.to_json() == report.image_tokens.to_json()
    found = estimate(sizes, plan, HARDWARE["T4"], read.prompt.front, 2, 2, late=read.late, encoding=read.encoding)
    assert {part: cost.flops for part, cost in found.prefill.items()} == report.prefill_flops
    assert {part: cost.flops for part, cost in found.decode.items()} == report.decode_flops
    tunable = model.units.tunable_of(report.granted)
    assert read.share.of_prefill(read.prompt, tunable) == pytest.approx(report.prefill_share)
    assert read.share.granted(0.7, read.prompt) == tunable


@pytest.mark.parametrize(("selector", "amount"), [(None, "all"), ("cls", "50%"), ("fastv", 2)])
def test_class_token_that_the_decoder_reads_is_counted(make_llava, pixels, selector, amount) -> None:
    model = make_llava("H", mm_vision_select_feature="cls_patch")
    sizes = sizes_of_model(model)
    assert sizes.image_tokens == model.max_image_tokens((28, 28)) == 2 * 2 + 1
    report, plan = reported(model, pixels, latency_budget=0.7, image_tokens=amount, token_selector=selector)
    full = all_positions(report)
    read = prompt_reading(sizes, full, 2, ImageTokens.parse(amount), selector)
    found = estimate(sizes, plan, HARDWARE["T4"], read.prompt.front, 2, 2, late=read.late, encoding=read.encoding)
    assert {part: cost.flops for part, cost in found.prefill.items()} == report.prefill_flops


@pytest.mark.parametrize("selector", ["prumerge", "shrink"])
def test_selector_of_patches_alone_is_refused_where_the_class_token_is_read(make_llava, selector) -> None:
    sizes = sizes_of_model(make_llava("H", mm_vision_select_feature="cls_patch"))
    with pytest.raises(OptionError, match="also reads the class token"):
        prompt_reading(sizes, 20, 1, ImageTokens.parse("50%"), selector)


def figures(capsys, *flags: str) -> dict:
    assert main(["--scheduler-type", "L", "--json", *flags]) == 0
    return json.loads(capsys.readouterr().out)


def test_fewer_tokens_take_the_share_that_the_study_states_at_7b(capsys) -> None:
    """A quarter of 576 tokens with 60 others at all layers is 0.32 of the prefill: 204 of 636 positions, and less."""
    found = figures(capsys, "--prompt-tokens", "636", "--image-tokens", "25%")
    assert found["image_tokens"] == {"all": 576, "kept": 144, "late": 144}
    assert found["executed_share"] == 1 and 0.31 < found["prefill_share"] < 204 / 636
    every = figures(capsys, "--prompt-tokens", "636")
    assert every["prefill_share"] == 1 and "token_selection" not in every["prefill"]
    assert found["prefill"]["vision_tower"] == every["prefill"]["vision_tower"], "the tower reads the image as ever"
    less, more = (one["peak_memory"]["kv_cache"] for one in (found, every))
    assert less / more == pytest.approx((204 + 31) / (636 + 31))


def layer_flops(positions: int) -> int:
    return 2 * positions * (4 * 4096**2 + 3 * 4096 * 11008) + 4 * positions**2 * 4096


@pytest.mark.parametrize(("amount", "front", "late"), [("all", 640, 640), ("25%", 208, 208), ("50%/25%", 352, 208)])
def test_a_budget_is_a_share_of_the_prefill_at_all_tokens(capsys, amount, front, late) -> None:
    """Layer by layer: two read all that enter before FastV leaves tokens out."""
    shares = [(2 * layer_flops(front) + (n - 2) * layer_flops(late)) / (32 * layer_flops(640)) for n in range(16, 33)]
    for budget in (0.01, 0.2, 0.3, 0.55, 0.99, 1.0):
        found = figures(capsys, "--image-tokens", amount, "--latency-budget", str(budget))
        within = [share for share in shares if share <= budget] or shares[:1]
        assert found["prefill_share"] == pytest.approx(within[-1])
        assert found["layers"] == 15 + len(within)


def test_times_fall_with_the_tokens_and_budgets_in_milliseconds_buy_units(capsys) -> None:
    amounts = ["all", "75%", "50%", "25%", "5%"]
    times = [figures(capsys, "--image-tokens", one)["totals"]["time_to_first_token_s"] for one in amounts]
    assert all(more > less for more, less in pairwise(times))
    layers = [
        figures(capsys, "--image-tokens", one, "--latency-budget", f"{900 * times[0]}ms")["layers"] for one in amounts
    ]
    assert layers[0] < 32 and layers[-1] == 32


def test_late_layer_decides_which_layers_read_fewer(capsys) -> None:
    flags = ["--image-tokens", "all/25%", "--token-selector"]
    shares = [figures(capsys, *flags, "fastv", "--late-layer", str(n))["prefill_share"] for n in (1, 2, 16, 31)]
    assert all(less < more for less, more in pairwise(shares))
    assert shares[1] == figures(capsys, *flags, "fastv")["prefill_share"]
    assert shares[2] == figures(capsys, *flags, "learned")["prefill_share"], "layer P"


def test_selection_counts_and_shrinking_spares_the_tower(capsys) -> None:
    found = {name: figures(capsys, "--image-tokens", "25%", "--token-selector", name)["prefill"] for name in SELECTORS}
    chosen = {name: parts.get("token_selection", {"flops": 0})["flops"] for name, parts in found.items()}
    assert chosen["divprune"] == 2 * 576 * 576 * 4096
    assert chosen["salient"] == chosen["grid"] == chosen["shrink"] == 0
    assert 0 < chosen["cls"] < chosen["prumerge"] == chosen["prumerge+"] < 0.01 * 8.5e12
    assert found["shrink"]["vision_tower"]["flops"] < 0.25 * found["grid"]["vision_tower"]["flops"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--image-tokens", "auto"], "a checkpoint's frontier decides"),
        (["--image-tokens", "auto", "--token-selector", "fastv"], "a checkpoint's frontier decides"),
        (["--image-tokens", "25%", "--images", "0"], "there is no image"),
        (["--image-tokens", "25%", "--prompt-tokens", "576"], "577 or more are expected"),
        (["--image-tokens", "all/25%", "--late-layer", "32"], "--late-layer is 32; expected 1 to 31"),
        (["--image-tokens", "25%", "--late-layer", "3"], "leaves nothing out in later layers"),
        (["--token-selector", "prumerge", "--image-tokens", "all/9"], "as many tokens as an image has outliers"),
        (["--token-selector", "prumerge"], "as many tokens as an image has outliers"),
        (["--image-tokens", "25%", "--as-published"], "--as-published counts the positions"),
    ],
)
def test_bad_input_is_a_user_error(flags, message, capsys) -> None:
    assert main(flags) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("amount", ["0", "-3", "200%", "many"])
def test_amount_that_is_none_is_refused(amount, capsys) -> None:
    with pytest.raises(SystemExit):
        main([f"--image-tokens={amount}"])
    assert "expected all, auto, a number of tokens" in " ".join(capsys.readouterr().err.split())


def test_selector_that_the_tower_cannot_run_is_refused(make_llava) -> None:
    model = make_llava("H")
    sizes = sizes_of_model(model)
    siglip = Sizes(sizes.config, sizes.units, SiglipVisionConfig(image_size=56, patch_size=14))
    scaled = Sizes(sizes.config, sizes.units, sizes.vision, crops_per_image=5)
    half = ImageTokens.parse("50%")
    with pytest.raises(OptionError, match="no class token"):
        prompt_reading(siglip, 20, 1, half, "cls")
    with pytest.raises(OptionError, match="several scales"):
        prompt_reading(scaled, 20, 1, half, "shrink")
