"""The stored profile: written, read, refused, and found by its fingerprint."""

import dataclasses
import json

import pytest
from fixtures.known_device import HERE, PROFILE

from ada.latency.device_profile import DeviceFingerprint, load_profile
from llava.errors import OptionError
from llava.model.int8_linear import quantise_int8


def test_profile_is_read_as_it_was_saved(tmp_path) -> None:
    path = tmp_path / "new" / "profile.json"
    PROFILE.save(path)
    assert load_profile(path, HERE) == PROFILE
    assert [file.name for file in path.parent.iterdir()] == ["profile.json"], "nothing half-written is left"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threads": 8}, "another threads: 2, and this is 8"),
        ({"torch": "3"}, "another torch: 2, and this is 3"),
        ({"device": "cuda"}, "another device: cpu, and this is cuda"),
    ],
)
def test_load_profile_refuses_another_fingerprint(tmp_path, change, message) -> None:
    path = tmp_path / "profile.json"
    PROFILE.save(path)
    with pytest.raises(OptionError, match=message + r".*python -m ada\.calibrate"):
        load_profile(path, dataclasses.replace(HERE, **change))


def test_load_profile_refuses_a_profile_of_all_image_tokens(tmp_path) -> None:
    """Version 2 has no terms for tokens that are left out: its times would be read as those of other terms."""
    path, fields = tmp_path / "profile.json", dataclasses.asdict(PROFILE)
    old = {**fields, "version": 3, "plan": fields["plan"][:-1], "rest": fields["rest"][:-1]}
    path.write_text(json.dumps(old))
    with pytest.raises(OptionError, match=r"has version 3, this program reads 4; calibrate again: python -m"):
        load_profile(path, HERE)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({**dataclasses.asdict(PROFILE), "version": 0})])
def test_load_profile_refuses_other_files(tmp_path, text) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(OptionError, match=r"profile\.json.*python -m ada\.calibrate"):
        load_profile(path, HERE)


def test_fingerprint_differs_by_weight_bits_and_threads(model, monkeypatch) -> None:
    dense = DeviceFingerprint.of(model)
    monkeypatch.setattr(model, "is_loaded_in_4bit", True, raising=False)
    four = DeviceFingerprint.of(model)
    assert dense.model != four.model and dense.path != four.path
    monkeypatch.undo()
    quantise_int8(model, (*model.never_quantised, "model.vision_tower"))
    eight = DeviceFingerprint.of(model)
    assert len({dense.model, four.model, eight.model}) == 3
    assert dataclasses.replace(dense, threads=7).path != dense.path


def test_path_is_in_the_cache_folder_of_the_user(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert HERE.path.parent == tmp_path / "ada-llava" / "calibration"
