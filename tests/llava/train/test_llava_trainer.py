"""The trainer's own parts: parameter groups and the order of samples."""

import pytest
import torch
from transformers.integrations.neftune import neftune_post_forward_hook

from llava.errors import OptionError
from llava.model import LlavaLlamaForCausalLM
from llava.train.data.samplers import ModalityGroupedSampler
from llava.train.train import make_trainer, parse_arguments


@pytest.fixture
def trainer(flags_of, tmp_path):
    return lambda **flags: make_trainer(parse_arguments(flags_of(tmp_path / "out", **flags)))


def settings_by_name(trainer):
    """Parameter name -> (learning rate, weight decay), and a check that none stands in two groups."""
    optimizer = trainer.create_optimizer()
    found = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = group["lr"], group["weight_decay"]
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    return {names[key]: value for key, value in found.items()}


@pytest.mark.parametrize("projector_rate", [None, 0.003])
def test_parameter_groups(trainer, projector_rate):
    rates = {} if projector_rate is None else {"mm_projector_lr": projector_rate}
    runner = trainer(learning_rate=0.02, weight_decay=0.1, **rates)
    found = settings_by_name(runner)
    learning = {name: p for name, p in runner.model.named_parameters() if p.requires_grad}
    assert found.keys() == learning.keys()
    for name, parameter in learning.items():
        rate = projector_rate if projector_rate and name.startswith("model.mm_projector.") else 0.02
        decay = 0.1 if parameter.dim() == 2 else 0.0  # norms and biases are vectors
        assert found[name] == (rate, decay), name


def test_noise_on_the_embeddings_is_that_of_neftune(trainer):
    """--neftune_noise_alpha: on in each look-up of a run, of texts with and without an image, and off after it."""
    runner, seen = trainer(neftune_noise_alpha=5.0), []
    table = runner.model.get_input_embeddings()
    table.register_forward_pre_hook(lambda *_: seen.append(hooks_of(table)))
    runner.train()
    assert seen and all(found == (5.0, [neftune_post_forward_hook]) for found in seen)
    assert runner.state.global_step == 2 and hooks_of(table) == (None, [])


def hooks_of(table):
    """The noise's scale, and what is applied to the embeddings."""
    return getattr(table, "neftune_noise_alpha", None), list(table._forward_hooks.values())


def test_noise_is_added_to_each_rows_text(model_with_noise):
    """Uniform, at most alpha / sqrt(tokens * width) from the embedding."""
    model, alpha = model_with_noise
    ids = torch.tensor([[1, 5, -200, 6, 7], [1, 8, 9, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    pixels = torch.zeros(1, 3, 16, 16)
    clean = model.eval().embed(ids, mask, images=pixels).embeds
    noisy = model.train().embed(ids, mask, images=pixels).embeds
    width = clean.shape[-1]
    for row, (tokens, text) in enumerate(((4, [0, 1, 6, 7]), (3, [0, 1, 2]))):
        differences = (noisy - clean)[row, text].abs()
        limit = alpha / (tokens * width) ** 0.5
        assert 0.8 * limit < differences.max() <= limit
    assert torch.equal(noisy[0, 2:6], clean[0, 2:6]), "the image's features"


@pytest.fixture
def model_with_noise(tiny_checkpoint):
    """A LLaVA with NEFTune's hook, as transformers' trainer sets it; and its alpha."""
    model = LlavaLlamaForCausalLM.from_pretrained(tiny_checkpoint)
    model.get_vision_tower().load_model()
    table = model.get_input_embeddings()
    table.neftune_noise_alpha = 5.0
    table.register_forward_hook(neftune_post_forward_hook)
    return model, table.neftune_noise_alpha


@pytest.mark.parametrize("factor", [0.1, 1.0, 1e-6])
def test_smoothed_labels_are_refused(trainer, factor):
    with pytest.raises(OptionError, match=f"--label_smoothing_factor is {factor}"):
        trainer(label_smoothing_factor=factor)


def test_the_optimizer_is_made_once(trainer):
    runner = trainer()
    assert runner.create_optimizer() is runner.create_optimizer()


def test_samples_grouped_by_modality(trainer):
    """A batch of the loader holds images or texts, not both: 8 records have one, 4 have none."""
    runner = trainer(group_by_modality_length=True, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    sampler = runner._get_train_sampler()
    assert isinstance(sampler, ModalityGroupedSampler)
    assert sampler.batch == 4
    for batch in runner.get_train_dataloader():
        assert len({(row == -200).any().item() for row in batch["input_ids"]}) == 1
    assert not isinstance(trainer()._get_train_sampler(), ModalityGroupedSampler)


def test_every_pass_has_its_order(trainer):
    loader = trainer(group_by_modality_length=True).get_train_dataloader()
    passes = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)  # as the trainer does
        passes.append([batch["input_ids"].tolist() for batch in loader])
    assert passes[0] == passes[2] != passes[1]


def test_the_epoch_reaches_the_sampler_before_the_trainer_begins_it(trainer):
    runner = trainer(group_by_modality_length=True)
    loader = runner.get_train_dataloader()
    runner.callback_handler.train_dataloader = loader
    for epoch in (2.5, 3.0):  # resumed within the third, then the next
        runner.state.epoch = epoch
        runner.callback_handler.on_epoch_begin(runner.args, runner.state, runner.control)
        assert loader.batch_sampler.sampler.epoch == int(epoch)


@pytest.mark.parametrize("kind", [{"tune_mm_mlp_adapter": True}, {"lora_enable": True}], ids=["projector", "adapter"])
def test_processes_that_save_nothing_gather_nothing(trainer, monkeypatch, tmp_path, kind):
    """A gathering that the first process does not take part in would never end."""
    runner = trainer(**kind)

    def gather(*args, **kwargs):
        raise AssertionError("gathered alone")

    monkeypatch.setattr(runner.accelerator, "get_state_dict", gather)
    monkeypatch.setattr(type(runner.args), "should_save", False)
    runner._save(str(tmp_path / "checkpoint-1"), None)
    assert not (tmp_path / "checkpoint-1").exists()
