"""An adapter names what it was trained on, perhaps another adapter: opened alone, it answers as in training."""

import json
import shutil

import platformdirs
import pytest
import torch

from llava.errors import CheckpointError, OptionError
from llava.model.builder import load_pretrained_model

peft = pytest.importorskip("peft")

PROMPT = torch.tensor([[1, 5, -200, 7]])
PIXELS = torch.linspace(-1, 1, 3 * 16 * 16).view(1, 3, 16, 16)


def opened(folder, base=None, **more):
    return load_pretrained_model(str(folder), base, "any", device="cpu", **more)[1]


def logits(model):
    with torch.no_grad():
        return model(PROMPT, images=PIXELS).logits


def train(model, folder, seed, base_name):
    """Give a model an adapter of random values, save it under a name of what it was trained on, and merge it."""
    model.config.save_pretrained(folder)
    torch.manual_seed(seed)
    targets = r"model\.layers\..*\.(q_proj|down_proj)"
    settings = peft.LoraConfig(r=2, lora_alpha=4, target_modules=targets, init_lora_weights=False)
    wrapped = peft.get_peft_model(model, settings).eval()
    wrapped.save_pretrained(folder)
    edit(folder / "adapter_config.json", base_model_name_or_path=base_name)
    return wrapped.merge_and_unload()


def edit(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.fixture
def chain(make_checkpoint, tmp_path):
    """Two adapters, one on the other, and the logits after each; the first one's base has no folder that it names."""
    base = make_checkpoint()
    model = opened(base)
    plain = logits(model)
    model = train(model, tmp_path / "first", 1, "the-base")
    after_first = logits(model)
    model = train(model, tmp_path / "second", 2, "../first")
    return base, tmp_path, (plain, after_first, logits(model))


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """A user's cache folder of our own."""
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *args, **kwargs: tmp_path / "cache")
    return tmp_path / "cache"


def close(one, other):
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_adapters_find_what_they_were_trained_on(chain, cache):
    base, folder, (plain, after_first, after_second) = chain
    shutil.copytree(base, cache / "models" / "the-base")
    close(logits(opened(folder / "first")), after_first)
    close(logits(opened(folder / "second")), after_second)
    assert (after_second - after_first).abs().max() > 1e-2 and (after_first - plain).abs().max() > 1e-2
    close(logits(opened("the-base")), plain)


def test_base_that_is_given_is_used(chain):
    base, folder, (_, after_first, _) = chain
    close(logits(opened(folder / "first", str(base))), after_first)


def test_last_adapter_apart_from_the_weights_can_be_turned_off_and_leaves_its_base_as_it_was(chain, cache):
    base, folder, _ = chain
    shutil.copytree(base, cache / "models" / "the-base")
    model = opened(folder / "second", merge_lora=False)
    on = logits(model)
    for module in model.modules():
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer):
            module.enable_adapters(False)
    assert torch.equal(logits(model), logits(opened(folder / "first")))
    assert not torch.equal(on, logits(model))


def test_base_that_is_not_there_is_named_with_what_makes_it(chain, cache):
    _, folder, _ = chain
    with pytest.raises(CheckpointError, match=r"names 'the-base', which is no folder here; name the model"):
        opened(folder / "first")
    edit(folder / "first" / "config.json", base_model_command="python -m make.base")
    with pytest.raises(CheckpointError, match=r"an adapter of the-base, .*: python -m make\.base"):
        opened(folder / "second")


def test_adapter_of_itself_is_refused(chain, cache):
    _, folder, _ = chain
    edit(folder / "first" / "adapter_config.json", base_model_name_or_path="../second")
    with pytest.raises(CheckpointError, match="or of itself"):
        opened(folder / "second")


def test_adapter_of_an_adapter_needs_weights_that_change(chain, cache):
    base, folder, _ = chain
    pytest.importorskip("bitsandbytes")
    shutil.copytree(base, cache / "models" / "the-base")
    with pytest.raises(OptionError, match="an adapter of an adapter, which 4-bit weights cannot take"):
        opened(folder / "second", load_4bit=True)
