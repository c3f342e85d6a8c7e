"""A toy data set, and training runs on the tiny LLaVA in this process."""

import json
import shutil

import pytest
from PIL import Image
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from llava.train.train import train

COLOURS = ("red", "green", "blue", "white")


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory):
    """A folder with ``data.json`` (12 records, every third without a picture), ``captions.json`` and ``images/``."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    records = []
    for number in range(12):
        answer = " ".join(f"w{5 + (number + step) % 9}" for step in range(1 + number % 4))
        messages = [{"from": "human", "value": f"w{20 + number} w{40 + number}"}, {"from": "gpt", "value": answer}]
        record = {"id": f"r{number}", "conversations": messages}
        if number % 3:
            record["image"] = f"{number}.png"
            Image.new("RGB", (20, 16), COLOURS[number % 4]).save(folder / "images" / record["image"])
            messages[0]["value"] += "\n<image>"
        records.append(record)
    (folder / "data.json").write_text(json.dumps(records))
    (folder / "captions.json").write_text(json.dumps([record for record in records if "image" in record]))
    return folder


@pytest.fixture(scope="session")
def plain_base(tiny_checkpoint, make_config, tmp_path_factory):
    """The tiny LLaVA's language model, alone."""
    folder = tmp_path_factory.mktemp("plain") / "base"
    settings = make_config().to_dict()
    shared = {key: value for key, value in settings.items() if not key.startswith("mm_") and key != "model_type"}
    model = LlamaForCausalLM(LlamaConfig(**shared))
    weights = load_file(tiny_checkpoint / "model.safetensors")
    model.load_state_dict({key: weights[key] for key in model.state_dict()})
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_checkpoint / name, folder)
    return folder


@pytest.fixture(scope="session")
def flags_of(toy_data, tiny_checkpoint):
    """``flags_of(output_dir, data=..., **flags)``: a short run's command line."""

    def make(out, data="data.json", **flags):
        settings = {
            "model_name_or_path": tiny_checkpoint,
            "version": "v1",
            "data_path": toy_data / data,
            "image_folder": toy_data / "images",
            "image_aspect_ratio": "pad",
            "mm_use_im_patch_token": False,
            "use_cpu": True,
            "output_dir": out,
            "max_steps": 2,
            "per_device_train_batch_size": 4,
            "learning_rate": 0.01,
            "lr_scheduler_type": "constant",
            "model_max_length": 64,
            "save_strategy": "no",
            "report_to": "none",
            "logging_steps": 1,
            "disable_tqdm": True,
            **flags,
        }
        return [word for name, value in settings.items() for word in (f"--{name}", str(value))]

    return make


@pytest.fixture(scope="session")
def trained(flags_of):
    """``trained(output_dir, data=..., **flags)`` runs the program in this process; the output folder."""

    def run(out, data="data.json", **flags):
        train(flags=flags_of(out, data, **flags))
        return out

    return run
