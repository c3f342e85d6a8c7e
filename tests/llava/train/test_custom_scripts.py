"""Training scripts whose data set, collator and trainer extend upstream's classes."""

import copy

import peft
import pytest
import torch
import transformers
from PIL import Image

from llava import conversation
from llava.conversation import conv_templates
from llava.mm_utils import expand2square
from llava.model import LlavaLlamaForCausalLM
from llava.model.builder import load_pretrained_model
from llava.train import train as upstream

TEMPLATES = ("v1", "llava_v1", "v0", "llava_v0", "plain", "mpt", "llava_llama_2", "mistral_instruct", "qwen_1_5")


class WeightedDataset(upstream.LazySupervisedDataset):
    """Makes samples with upstream's steps, and a weight that the script's own argument sets."""

    def __getitem__(self, i):
        record, args = self.list_data_dict[i], self.data_args
        turns = copy.deepcopy([record["conversations"]])
        if "image" in record:
            image = Image.open(f"{args.image_folder}/{record['image']}").convert("RGB")
            if args.image_aspect_ratio == "pad":
                image = expand2square(image, tuple(int(mean * 255) for mean in args.image_processor.image_mean))
            pixels = args.image_processor.preprocess(image, return_tensors="pt")["pixel_values"][0]
            turns = upstream.preprocess_multimodal(turns, args)
        else:
            size = args.image_processor.crop_size
            pixels = torch.zeros(3, size["height"], size["width"])
        texts = upstream.preprocess(turns, self.tokenizer, has_image="image" in record)
        return {**{name: texts[name][0] for name in ("input_ids", "labels")}, "image": pixels, "weight": args.weight}


class WeightedCollator(upstream.DataCollatorForSupervisedDataset):
    def __call__(self, instances):
        return {**super().__call__(instances), "weight": torch.tensor([sample["weight"] for sample in instances])}


class WeightedTrainer(upstream.LLaVATrainer):
    """Scales the loss, and saves a file more than the model."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        weight = inputs.pop("weight").mean()
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **kwargs)
        return (weight * loss, outputs) if return_outputs else weight * loss

    def _save(self, output_dir=None, state_dict=None):
        super()._save(output_dir, state_dict)
        torch.save({"weight": torch.ones(1)}, f"{output_dir}/weight.bin")


@pytest.fixture
def parts(tiny_checkpoint, toy_data, tmp_path, monkeypatch):
    """What upstream's ``train`` makes before its trainer, and ``weight``, an argument of the script's own."""
    monkeypatch.setattr(conversation, "default_conversation", conv_templates["v1"])
    model = LlavaLlamaForCausalLM.from_pretrained(tiny_checkpoint)
    model.get_vision_tower().load_model()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_checkpoint, model_max_length=128, padding_side="right")
    data_args = upstream.DataArguments(data_path=str(toy_data / "data.json"), image_folder=str(toy_data / "images"))
    data_args.image_processor = model.get_vision_tower().image_processor
    data_args.is_multimodal, data_args.mm_use_im_start_end, data_args.weight = True, False, 0.5
    settings = {"max_steps": 2, "per_device_train_batch_size": 2, "use_cpu": True, "remove_unused_columns": False}
    return model, tokenizer, data_args, upstream.TrainingArguments(output_dir=str(tmp_path / "out"), **settings)


@pytest.mark.parametrize("aspect", ["square", "pad"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_samples_in_upstreams_steps_are_those_of_the_data_set(parts, monkeypatch, template, aspect):
    monkeypatch.setattr(conversation, "default_conversation", conv_templates[template])
    _, tokenizer, data_args, _ = parts
    data_args.image_aspect_ratio = aspect
    if template == "plain":
        data_args.data_path = data_args.data_path.replace("data.json", "captions.json")
    own = WeightedDataset(data_args.data_path, tokenizer, data_args)
    ours = upstream.LazySupervisedDataset(data_args.data_path, tokenizer, data_args)
    assert own.data_args is ours.data_args is data_args
    for index in range(len(own)):
        found, expected = own[index], ours[index]
        assert all(torch.equal(found[name], expected[name]) for name in ("input_ids", "labels", "image")), index


def test_arguments_that_change_count_from_then_on(parts):
    _, tokenizer, data_args, _ = parts
    data_args.image_aspect_ratio = "square"
    samples = upstream.LazySupervisedDataset(data_args.data_path, tokenizer, data_args)
    before = samples[1]["image"]
    samples.data_args.image_aspect_ratio = "pad"
    assert not torch.equal(samples[1]["image"], before)


def test_trainer_with_its_own_loss_saves_its_own_files(parts, tmp_path):
    model, tokenizer, data_args, training_args = parts
    samples = WeightedDataset(data_args.data_path, tokenizer, data_args)
    trainer = WeightedTrainer(
        model=model,
        tokenizer=tokenizer,
        args=training_args,
        train_dataset=samples,
        data_collator=WeightedCollator(tokenizer),
    )
    batch = next(iter(trainer.get_train_dataloader()))
    plain = upstream.LLaVATrainer(model=model, tokenizer=tokenizer, args=training_args)
    expected = 0.5 * plain.compute_loss(model, {name: batch[name] for name in batch if name != "weight"})
    torch.testing.assert_close(trainer.compute_loss(model, dict(batch)), expected)
    trainer.train()
    upstream.safe_save_model_for_hf_trainer(trainer=trainer, output_dir=str(tmp_path / "saved"))
    assert torch.load(tmp_path / "saved" / "weight.bin", weights_only=True)["weight"] == 1
    _, opened, _, _ = load_pretrained_model(str(tmp_path / "saved"), None, "saved", device="cpu")
    now, saved = model.state_dict(), opened.state_dict()
    assert all(torch.equal(now[name], saved[name]) for name in now)


class PreferenceTrainer(upstream.LLaVATrainer):
    """Learns from pairs of answers, as DPO does: its batches have neither ``input_ids`` nor ``labels``."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        kinds = [{key.removeprefix(f"{kind}_"): inputs[key] for key in inputs if key.startswith(kind)} for kind in PAIR]
        better, worse = (model(**batch).loss for batch in kinds)
        return -torch.nn.functional.logsigmoid(worse - better)


PAIR = ("win", "rej")


def test_trainer_of_pairs_learns(parts):
    model, tokenizer, data_args, training_args = parts
    collate = upstream.DataCollatorForSupervisedDataset(tokenizer)

    def pairs(instances):
        batches = zip(PAIR, (collate(instances), collate(instances[::-1])), strict=True)
        return {f"{kind}_{name}": value for kind, batch in batches for name, value in batch.items()}

    training_args.max_steps = 12  # more than may be without a label where there are labels
    samples = upstream.LazySupervisedDataset(data_args.data_path, tokenizer, data_args)
    trainer = PreferenceTrainer(model=model, args=training_args, train_dataset=samples, data_collator=pairs)
    assert trainer.train().global_step == 12


@pytest.mark.parametrize("kind", [upstream.LLaVATrainer, transformers.Trainer])
def test_trainer_without_a_tokenizer_is_saved(parts, tmp_path, kind):
    trainer = kind(model=parts[0], args=parts[3])
    upstream.safe_save_model_for_hf_trainer(trainer, str(tmp_path / "saved"))
    assert LlavaLlamaForCausalLM.from_pretrained(tmp_path / "saved").get_vision_tower() is not None


def test_trainer_takes_transformers_own_arguments(parts, tmp_path):
    """Which have none of LLaVA's fields, such as ``group_by_modality_length``."""
    model, tokenizer, data_args, _ = parts
    args = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=1, use_cpu=True, remove_unused_columns=False, save_strategy="no"
    )
    module = upstream.make_supervised_data_module(tokenizer, data_args)
    assert upstream.LLaVATrainer(model=model, tokenizer=tokenizer, args=args, **module).train().global_step == 1


def test_crops_without_their_images_size_are_collated(parts):
    """As a data set of a script's own gives them; features that are merged "flat" need no size."""
    _, tokenizer, _, _ = parts
    sample = {"input_ids": torch.tensor([1, 5]), "labels": torch.tensor([1, 5]), "image": torch.zeros(2, 3, 16, 16)}
    collate = upstream.DataCollatorForSupervisedDataset(tokenizer)
    assert "image_sizes" not in collate([sample, sample])
    assert collate([{**sample, "image_size": (3, 4)}])["image_sizes"] == [(3, 4)]


@pytest.mark.parametrize(
    "name",
    "conversation_lib tokenizer_image_token LLaVATrainer IGNORE_INDEX IMAGE_TOKEN_INDEX DEFAULT_IMAGE_TOKEN "
    "DEFAULT_IM_START_TOKEN DEFAULT_IM_END_TOKEN".split(),
)
def test_star_import_gives_what_upstreams_module_imports(name):
    """Scripts begin with ``from llava.train.train import *``, and set ``conversation_lib.default_conversation``."""
    found = {}
    exec("from llava.train.train import *", found)
    assert name in found


@pytest.fixture
def adapted(parts):
    """A trainer of peft's wrapper around the model, its adapters far from none, and the projector trained with them."""
    model, tokenizer, data_args, training_args = parts
    tower = model.get_model().vision_tower
    del model.get_model().vision_tower  # as in upstream's order: adapters first, then the vision modules
    config = peft.LoraConfig(r=2, target_modules=upstream.find_all_linear_names(model), task_type="CAUSAL_LM")
    wrapped = peft.get_peft_model(model, config)
    model.get_model().vision_tower = tower
    model.get_model().mm_projector.requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    training_args.save_strategy, training_args.save_steps = "steps", 1
    module = upstream.make_supervised_data_module(tokenizer, data_args)
    return upstream.LLaVATrainer(model=wrapped, tokenizer=tokenizer, args=training_args, **module)


@pytest.mark.parametrize("way", ["checkpoint", "safe_save_model_for_hf_trainer", "save_model"])
def test_trainer_of_a_peft_model_saves_an_adapter_that_opens(adapted, tiny_checkpoint, tmp_path, way):
    folder = tmp_path / "llava-lora"
    adapted.train()
    if way == "checkpoint":
        folder = tmp_path / "out" / "checkpoint-2"
    elif way == "save_model":
        adapted.save_model(str(folder))
    else:
        upstream.safe_save_model_for_hf_trainer(adapted, str(folder))
    _, opened, _, _ = load_pretrained_model(str(folder), str(tiny_checkpoint), "llava-lora", device="cpu")
    batch = next(iter(adapted.get_train_dataloader()))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "images")}
    expected = adapted.model.eval()(**inputs).logits
    torch.testing.assert_close(opened(**inputs).logits, expected, atol=1e-4, rtol=1e-4)


def test_trainer_of_a_peft_model_resumes(adapted, tmp_path):
    adapted.train()
    now = {name: tensor.clone() for name, tensor in adapted.model.state_dict().items()}
    for parameter in adapted.model.parameters():
        if parameter.requires_grad:
            parameter.data.zero_()
    adapted.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))
    assert all(torch.equal(tensor, now[name]) for name, tensor in adapted.model.state_dict().items())
