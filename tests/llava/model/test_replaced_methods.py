"""What research code replaces at run time takes effect wherever a model runs: training, generate, the engine."""

import threading

import pytest
import torch

from llava.generation import SamplingParams
from llava.mm_utils import load_image
from llava.model.loaded_model import open_model
from llava.model.multimodal_encoder.clip_encoder import CLIPVisionTower
from llava.serve.engine.batch_engine import BatchEngine
from llava.serve.engine.policy import ServingPolicy
from llava.serve.engine.request import EngineRequest, Finished, GenerationRequest
from llava.serve.engine.request_queue import RequestQueue
from llava.serve.engine.threads_engine import ThreadsEngine
from llava.train.train import make_trainer, parse_arguments

IDS = torch.tensor([[1, 5, -200, 6, 7, 8]])
POSITIONS = 5 + 4  # the tags' images have four positions
FORMS = {  # of one image's pixels
    "batch": lambda pixels: pixels[:1],
    "list": lambda pixels: [pixels[0]],
    "crops": lambda pixels: pixels[None, :1],
}


@pytest.mark.parametrize("form", FORMS)
def test_replaced_method_takes_effect_in_forward_and_generate(model, pixels, replace_method, form):
    images = FORMS[form](pixels)
    options = {"max_new_tokens": 2, "min_new_tokens": 2, "do_sample": False, "return_dict_in_generate": True}
    options["output_hidden_states"] = True
    prefilled = model.generate(IDS, images=images, **options).hidden_states[0][0].shape[1]
    assert (model(IDS, images=images).logits.shape[1], prefilled) == (POSITIONS, POSITIONS)
    calls = replace_method(model)
    assert model(IDS, images=images).logits.shape[1] == POSITIONS - 2
    assert len(calls) == 1
    assert model.generate(IDS, images=images, **options).hidden_states[0][0].shape[1] == POSITIONS - 2
    assert model.embed(IDS, images=images).embeds.shape[1] == POSITIONS - 2


def test_replaced_method_takes_effect_in_training(flags_of, tmp_path, replace_method):
    trainer = make_trainer(parse_arguments(flags_of(tmp_path / "out")))
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["input_ids"] == -200).any()
    _, before = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    calls = replace_method(trainer.model)
    loss, after = trainer.compute_loss(trainer.model, dict(batch), return_outputs=True)
    assert calls and before.logits.shape[1] - after.logits.shape[1] == 2
    loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in trainer.model.get_model().mm_projector.parameters())


@pytest.mark.parametrize("engine_class", [BatchEngine, ThreadsEngine])
def test_replaced_method_takes_effect_in_the_engine(make_checkpoint, image_file, replace_method, engine_class):
    folder = make_checkpoint(eos_token_id=None)
    loaded = open_model({"model_path": str(folder), "device": "cpu"})
    calls, widths = replace_method(loaded.model), []
    loaded.model.model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["inputs_embeds"].shape[1]) if len(widths) == 0 else None,
        with_kwargs=True,
    )
    queue = RequestQueue(2, 10)
    engine = engine_class(loaded, queue, ServingPolicy())
    engine.start()
    prompt = "<image> w5 w6"
    generation = GenerationRequest(
        prompt, (load_image(str(image_file)),), SamplingParams(max_new_tokens=2), (), {}, 10, prompt
    )
    request, done = EngineRequest(generation, "id"), threading.Event()
    request.wake = lambda: done.set() if request.outcome is not None else None
    queue.put(request)
    assert done.wait(60)
    queue.close()
    assert engine.join(60)
    assert isinstance(request.outcome, Finished) and calls
    assert widths == [1 + 4 + 2 - 2], "<s>, an image and two words, without two positions"


def test_replaced_merging_may_use_several_images_for_one_tag(model, pixels, monkeypatch):
    """A video model's code: the frames of one tag, averaged."""

    def one_image(self, input_ids, position_ids, attention_mask, past_key_values, labels, images, image_sizes=None):
        if images is None:
            return input_ids, position_ids, attention_mask, past_key_values, None, labels
        image = self.encode_images(images).mean(0)
        embed, tag = self.get_model().embed_tokens, int((input_ids[0] == -200).nonzero())
        embeds = torch.cat([embed(input_ids[0, :tag]), image, embed(input_ids[0, tag + 1 :])])[None]
        return None, position_ids, attention_mask, past_key_values, embeds, labels

    monkeypatch.setattr(type(model), "prepare_inputs_labels_for_multimodal", one_image)
    assert model(IDS, images=pixels).logits.shape[1] == POSITIONS
    assert model.embed(IDS, images=pixels).num_images == [3]
    assert model.generate(IDS, images=pixels, max_new_tokens=1).shape == (1, 1)


def test_replaced_feature_select_takes_effect(model, pixels, monkeypatch):
    """Code that joins several layers: the states are those of transformers' own list."""
    tower = model.get_vision_tower()
    states = tower.vision_tower(pixels, output_hidden_states=True).hidden_states

    def select(self, image_forward_outs):
        return torch.stack([image_forward_outs.hidden_states[layer][:, 1:] for layer in (-1, 1)]).mean(0)

    monkeypatch.setattr(CLIPVisionTower, "feature_select", select)
    torch.testing.assert_close(tower(pixels), (states[-1][:, 1:] + states[1][:, 1:]) / 2)


def test_forward_in_upstreams_words_takes_effect(model, pixels, monkeypatch):
    """Code that was copied from upstream's forward and changed."""
    expected = 2 * model.get_vision_tower()(pixels)

    def forward(self, images):
        outputs = self.vision_tower(images.to(device=self.device, dtype=self.dtype), output_hidden_states=True)
        return 2 * self.feature_select(outputs).to(images.dtype)

    monkeypatch.setattr(CLIPVisionTower, "forward", forward)
    torch.testing.assert_close(model.get_vision_tower()(pixels), expected)
    model(torch.tensor([[1, 5, 6]]), output_hidden_states=True, output_attentions=True)
    torch.testing.assert_close(model.get_vision_tower()(pixels), expected)
