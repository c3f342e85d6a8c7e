"""A training script in upstream's words: its own model, arguments and trainer, built of the names it imports."""

import copy

import pytest
import torch
import transformers

from llava import conversation
from llava.conversation import conv_templates
from llava.model import LlavaLlamaForCausalLM
from llava.model.builder import load_pretrained_model
from llava.train import train as upstream


@pytest.fixture
def parts(tiny_checkpoint, toy_data, tmp_path, monkeypatch):
    """What upstream's ``train`` makes before its trainer: model, tokenizer, data and training arguments."""
    monkeypatch.setattr(conversation, "default_conversation", conv_templates["v1"])
    model = LlavaLlamaForCausalLM.from_pretrained(tiny_checkpoint)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_checkpoint, model_max_length=128, padding_side="right")
    model.get_vision_tower().load_model()
    data_args = upstream.DataArguments(data_path=str(toy_data / "data.json"), image_folder=str(toy_data / "images"))
    data_args.image_processor = model.get_vision_tower().image_processor
    data_args.is_multimodal, data_args.mm_use_im_start_end = True, False
    training_args = upstream.TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=2, per_device_train_batch_size=2, use_cpu=True, mm_projector_lr=0.5
    )
    return model, tokenizer, data_args, training_args


def trainer_of(parts):
    model, tokenizer, data_args, training_args = parts
    module = upstream.make_supervised_data_module(tokenizer=tokenizer, data_args=data_args)
    assert module["eval_dataset"] is None
    return upstream.LLaVATrainer(model=model, tokenizer=tokenizer, args=training_args, **module)


def test_script_trains_and_saves_a_checkpoint_that_opens(parts, tmp_path):
    model = parts[0]
    before = copy.deepcopy(model.state_dict())
    trainer = trainer_of(parts)
    assert {group["lr"] for group in trainer.create_optimizer().param_groups} == {0.5, parts[3].learning_rate}
    trainer.train()
    upstream.safe_save_model_for_hf_trainer(trainer=trainer, output_dir=str(tmp_path / "saved"))
    _, opened, _, _ = load_pretrained_model(str(tmp_path / "saved"), None, "saved", device="cpu")
    changed = [name for name, tensor in opened.state_dict().items() if not torch.equal(tensor, before[name])]
    assert changed and not any("vision_tower" in name for name in changed)


def test_script_of_lora_saves_an_adapter_that_opens(parts, tiny_checkpoint, tmp_path):
    """peft's own wrapper, and the three files that upstream's ``train`` writes."""
    peft = pytest.importorskip("peft")
    model, tokenizer, data_args, training_args = parts
    tower = model.get_model().vision_tower
    names = upstream.find_all_linear_names(model)
    assert names == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    del model.get_model().vision_tower  # as in upstream's order: adapters first, then the vision modules
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=names, task_type="CAUSAL_LM"))
    model.get_model().vision_tower = tower
    for parameter in model.get_model().mm_projector.parameters():
        parameter.requires_grad = True
    trainer = trainer_of((adapted, tokenizer, data_args, training_args))
    trainer.train()
    folder = tmp_path / "llava-lora"
    state = upstream.get_peft_state_maybe_zero_3(adapted.named_parameters(), training_args.lora_bias)
    others = upstream.get_peft_state_non_lora_maybe_zero_3(adapted.named_parameters())
    model.config.save_pretrained(folder)
    adapted.save_pretrained(folder, state_dict=state)
    torch.save(others, folder / "non_lora_trainables.bin")
    assert all("mm_projector" in name for name in others) and len(others) == 4
    _, opened, _, _ = load_pretrained_model(str(folder), str(tiny_checkpoint), "llava-lora", device="cpu")
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "images")}
    torch.testing.assert_close(opened(**inputs).logits, adapted.eval()(**inputs).logits, atol=1e-4, rtol=1e-4)


def test_script_of_stage_1_saves_the_projector_alone(parts, tmp_path):
    parts[3].tune_mm_mlp_adapter = True  # as upstream copies it from the model's arguments
    trainer = trainer_of(parts)
    upstream.safe_save_model_for_hf_trainer(trainer, str(tmp_path / "saved"))
    state = torch.load(tmp_path / "saved" / "mm_projector.bin", weights_only=True)
    assert set(state) == {name for name in parts[0].state_dict() if "mm_projector" in name}


def test_plain_trainer_is_saved_too(parts, tmp_path):
    model, tokenizer, _, training_args = parts
    trainer = transformers.Trainer(model=model, args=training_args, processing_class=tokenizer)
    upstream.safe_save_model_for_hf_trainer(trainer, str(tmp_path / "full"))
    assert (tmp_path / "full" / "model.safetensors").is_file()
    training_args.tune_mm_mlp_adapter = True
    upstream.safe_save_model_for_hf_trainer(trainer, str(tmp_path / "projector"))
    assert (tmp_path / "projector" / "mm_projector.bin").is_file()


def test_text_only_model_gets_no_black_image(parts):
    _, tokenizer, data_args, _ = parts
    with_tower = upstream.LazySupervisedDataset(data_args.data_path, tokenizer, data_args)
    text_only = copy.copy(data_args)
    text_only.is_multimodal = False
    without = upstream.LazySupervisedDataset(data_path=data_args.data_path, tokenizer=tokenizer, data_args=text_only)
    assert "image" in with_tower[0] and "image" not in without[0]
    assert torch.equal(with_tower[0]["input_ids"], without[0]["input_ids"])


@pytest.mark.parametrize("known", [False, True])
def test_embeddings_grow_by_the_mean_for_new_tokens_only(parts, known):
    model, tokenizer, _, _ = parts
    if known:
        tokenizer.add_tokens(["[PAD]"])
        model.resize_token_embeddings(len(tokenizer))
    tables = [model.get_input_embeddings().weight.clone(), model.get_output_embeddings().weight.clone()]
    upstream.smart_tokenizer_and_embedding_resize({"pad_token": "[PAD]"}, tokenizer, model)
    assert tokenizer.pad_token == "[PAD]"
    now = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    for before, after in zip(tables, now, strict=True):
        expected = before if known else torch.cat([before, before.mean(0, keepdim=True)])
        torch.testing.assert_close(after, expected)


@pytest.mark.parametrize(("rank", "printed"), [(None, ""), (0, "step 3\n"), (-1, "step 3\n"), (1, "")])
def test_rank0_print_prints_in_the_first_process(monkeypatch, capsys, rank, printed):
    monkeypatch.setattr(upstream, "local_rank", rank)
    upstream.rank0_print("step", 3)
    assert capsys.readouterr().out == printed
