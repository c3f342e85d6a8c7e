"""The workloads of a calibration: lengths, units and images."""

import pytest

from ada.latency import design
from ada.latency.design import HELD_OUT_EVERY, Design, image_tokens_read


@pytest.mark.parametrize("count", [24, 64])
def test_fitted_workloads_include_none_and_all_units(model, count) -> None:
    workloads = Design.of(model).draw(count)
    fitted = [workload.num_units for number, workload in enumerate(workloads) if number % HELD_OUT_EVERY]
    assert all(fitted.count(end) >= count // 8 for end in (0, model.units.tunable))
    assert len(set(fitted)) == model.units.tunable + 1, "and every number of units between them"


def test_draw_with_the_same_seed_repeats(model) -> None:
    design = Design.of(model)
    assert design.draw(20, seed=3) == design.draw(20, seed=3) != design.draw(20, seed=4)


@pytest.mark.parametrize("cut_off", [48, 100, 512])
def test_workloads_with_an_image_reach_the_longest_prompt_wherever_training_cut_samples(model, monkeypatch, cut_off):
    monkeypatch.setattr(model.config, "max_position_embeddings", 256)
    monkeypatch.setattr(model.config, "tokenizer_model_max_length", cut_off, raising=False)
    for workloads in (Design.of(model).draw(400), Design.of(model, min_tokens=64).draw(400)):
        for count in (0, 1):
            assert 240 < max(one.num_tokens for one in workloads if one.num_images == count) <= 256


def test_workloads_reach_the_longest_prompt_of_a_context_of_1024(model, monkeypatch) -> None:
    monkeypatch.setattr(model.config, "max_position_embeddings", 1024)
    workloads = Design.of(model, min_tokens=64).draw(2000)
    text, images = ([one.num_tokens for one in workloads if one.num_images == count] for count in (0, 1))
    assert min(text) == 64 and 1020 <= max(text) <= 1024
    assert min(images) >= 64 and 1000 < max(images) <= 1024


@pytest.mark.parametrize("image_tokens", [1024, 2880])
def test_images_of_many_tokens_are_calibrated_too(model, monkeypatch, image_tokens) -> None:
    monkeypatch.setattr(model.config, "max_position_embeddings", 4096)
    monkeypatch.setattr(design, "image_tokens_of", lambda model: image_tokens)
    workloads = Design.of(model).draw(200)
    complete = [one for one in workloads if one.num_images and not one.num_selected]
    assert complete and all(image_tokens + 32 <= one.num_tokens <= image_tokens + 256 for one in complete)


SIZES_7B = Design(32, 1024, 576, 64, late=True)


def test_workloads_with_an_image_cover_few_and_many_of_its_tokens() -> None:
    workloads = SIZES_7B.draw(400)
    images = [one for one in workloads if one.num_images]
    selected = [one for one in images if one.num_selected]
    assert 0.4 < len(selected) / len(images) < 0.6
    kept = [image_tokens_read(one, 576)[0] for one in selected]
    assert min(kept) < 40 and max(kept) == 575 and 150 < sorted(kept)[len(kept) // 2] < 400
    assert all(one.num_tokens >= 608 for one in images if not one.num_selected), "all tokens, and some text"


def test_workloads_of_later_layers_cover_few_and_many_tokens() -> None:
    late = [one for one in SIZES_7B.draw(600) if one.late_tokens is not None]
    assert len(late) > 60 and all(one.num_images and one.late_tokens < one.num_tokens for one in late)
    for one in late:
        front, kept = image_tokens_read(one, 576)
        assert 1 <= kept < front <= 576 and one.num_tokens - one.late_tokens == front - kept
    shares = [image_tokens_read(one, 576)[1] / image_tokens_read(one, 576)[0] for one in late]
    assert min(shares) < 0.15 and max(shares) > 0.85


def test_workloads_read_fewer_tokens_late_only_with_a_trained_scorer(model, monkeypatch) -> None:
    assert all(one.late_tokens is None for one in Design.of(model).draw(200))
    monkeypatch.setattr(model, "token_scorer", object(), raising=False)
    assert any(one.late_tokens is not None for one in Design.of(model).draw(200))


def test_workloads_of_merged_tokens_leave_none_out(model, monkeypatch) -> None:
    assert any(one.num_selected for one in Design.of(model).draw(100))
    monkeypatch.setattr(model.config, "token_selecting", "prumerge")
    assert not any(one.num_selected for one in Design.of(model).draw(100))
