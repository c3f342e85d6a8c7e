"""The workloads of a calibration: lengths, units and images."""

import pytest

from ada.latency.design import HELD_OUT_EVERY, Design


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
