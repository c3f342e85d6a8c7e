"""LLaVA on MPT: upstream's checkpoint layout, against transformers' own decoder; training, serving, refusals."""

import json
import shutil
import threading

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MptConfig, MptForCausalLM

from llava.errors import CheckpointError
from llava.generation import SamplingParams, answer
from llava.mm_utils import load_image
from llava.model.builder import load_pretrained_model
from llava.model.consolidate import consolidate_ckpt
from llava.model.convert import convert
from llava.model.language_model.llava_mpt import LlavaMptConfig, LlavaMptForCausalLM
from llava.model.loaded_model import open_model
from llava.serve.engine.batch_engine import BatchEngine
from llava.serve.engine.policy import ServingPolicy
from llava.serve.engine.request import EngineRequest, GenerationRequest
from llava.serve.engine.request_queue import RequestQueue

# As upstream's config.json of an MPT has them.
FIELDS = {
    "model_type": "llava_mpt",
    "architectures": ["LlavaMPTForCausalLM"],
    "d_model": 32,
    "n_heads": 4,
    "n_layers": 2,
    "expansion_ratio": 4,
    "max_seq_len": 128,
    "vocab_size": 60,
    "resid_pdrop": 0,
    "emb_pdrop": 0,
    "learned_pos_emb": True,
    "attn_config": {
        "alibi": True,
        "alibi_bias_max": 8,
        "attn_impl": "torch",
        "attn_pdrop": 0,
        "attn_type": "multihead_attention",
        "attn_uses_sequence_id": False,
        "clip_qkv": None,
        "prefix_lm": False,
        "qk_ln": False,
        "softmax_scale": None,
    },
    "init_device": "cpu",
    "logit_scale": None,
    "no_bias": True,
    "verbose": 0,
    "embedding_fraction": 1.0,
    "norm_type": "low_precision_layernorm",
    "use_cache": False,
    "init_config": {"name": "kaiming_normal_", "fan_mode": "fan_in"},
    "tokenizer_name": "EleutherAI/gpt-neox-20b",
    "torch_dtype": "float32",
    "eos_token_id": None,
    "mm_vision_tower": "tower",
    "mm_hidden_size": 24,
    "mm_projector_type": "linear",
    "mm_vision_select_layer": -2,
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "image_aspect_ratio": "pad",
}
BLOCK = {
    "norm_1.weight": (32,),
    "attn.Wqkv.weight": (96, 32),
    "attn.out_proj.weight": (32, 32),
    "norm_2.weight": (32,),
    "ffn.up_proj.weight": (128, 32),
    "ffn.down_proj.weight": (32, 128),
}
SHAPES = {
    "transformer.wte.weight": (60, 32),
    **{f"transformer.blocks.{block}.{name}": shape for block in (0, 1) for name, shape in BLOCK.items()},
    "transformer.norm_f.weight": (32,),
    "transformer.mm_projector.weight": (32, 24),
    "transformer.mm_projector.bias": (32,),
}
IDS = torch.tensor([[1, 5, -200, 6, 7]])


@pytest.fixture(scope="module")
def folder(tiny_checkpoint, tiny_tokenizer, tmp_path_factory):
    """A checkpoint as upstream writes it: pickled, without lm_head, as that is the embedding's table."""
    path = tmp_path_factory.mktemp("mpt") / "llava-mpt"
    shutil.copytree(tiny_checkpoint / "tower", path / "tower")
    tiny_tokenizer().save_pretrained(path)
    rng = torch.Generator().manual_seed(0)
    tensors = {name: 0.3 * torch.randn(shape, generator=rng) for name, shape in SHAPES.items()}
    torch.save(tensors, path / "pytorch_model.bin")
    (path / "config.json").write_text(json.dumps(FIELDS))
    return path


@pytest.fixture(scope="module")
def opened(folder):
    return load_pretrained_model(str(folder), None, "llava-mpt", device="cpu")


def plain_decoder(folder):
    """transformers' own MPT with the checkpoint's weights."""
    names = ("d_model", "n_heads", "n_layers", "max_seq_len", "vocab_size", "attn_config")
    model = MptForCausalLM(MptConfig(**{name: FIELDS[name] for name in names})).eval()
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    own = {name: tensor for name, tensor in tensors.items() if "mm_projector" not in name}
    model.load_state_dict({**own, "lm_head.weight": tensors["transformer.wte.weight"]})
    return model, tensors


@torch.no_grad()
def test_logits_are_those_of_transformers_decoder_on_the_merged_inputs(folder, opened, pixels):
    _, model, processor, _ = opened
    decoder, tensors = plain_decoder(folder)
    assert isinstance(model, LlavaMptForCausalLM) and processor is not None
    features = model.get_vision_tower()(pixels[:1])[0] @ tensors["transformer.mm_projector.weight"].T
    features = features + tensors["transformer.mm_projector.bias"]
    text = decoder.transformer.wte(IDS[0].clamp(min=0))
    embeds = torch.cat([text[:2], features, text[3:]])[None]
    expected = decoder(inputs_embeds=embeds).logits
    torch.testing.assert_close(model(IDS, images=pixels[:1]).logits, expected)
    labels = IDS.clamp(min=0)
    assert torch.isfinite(model(IDS, images=pixels[:1], labels=labels).loss)


@torch.no_grad()
def test_generate_gives_the_greedy_tokens_of_transformers_decoder(folder, opened, pixels):
    _, model, _, _ = opened
    embeds = model.embed(IDS, images=pixels[:1]).embeds
    decoder, _ = plain_decoder(folder)
    found = model.generate(IDS, images=pixels[:1], max_new_tokens=6, do_sample=False)[0].tolist()
    for token in found:
        assert token == int(decoder(inputs_embeds=embeds).logits[0, -1].argmax())
        embeds = torch.cat([embeds, decoder.transformer.wte(torch.tensor([[token]]))], dim=1)
    assert len(found) == 6


def test_config_names_are_those_of_other_decoders_too():
    config = LlavaMptConfig(**{name: FIELDS[name] for name in ("d_model", "n_heads", "n_layers", "max_seq_len")})
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (32, 2, 4)
    assert (config.num_key_value_heads, config.max_position_embeddings) == (4, 128)


def test_program_answers_with_upstreams_template(folder, image_file):
    loaded = open_model({"model_path": str(folder), "device": "cpu", "model_name": "LLaVA-Lightning-MPT-7B"})
    assert loaded.template.version == "mpt" and loaded.context_length == 128
    found = answer(
        loaded.model,
        loaded.tokenizer,
        loaded.image_processor,
        "<image> w5",
        [load_image(str(image_file))],
        sampling=SamplingParams(max_new_tokens=3),
    )
    assert len(found.token_ids) == 3


def test_engine_gives_each_request_the_answer_that_it_gets_alone(folder, image_file):
    loaded, image = open_model({"model_path": str(folder), "device": "cpu"}), load_image(str(image_file))
    queue = RequestQueue(3, 10)
    engine = BatchEngine(loaded, queue, ServingPolicy())
    requests = []
    for words in ("w5", "w6 w7 w8", "w9 w10"):
        prompt = f"<image> {words}"
        body = GenerationRequest(prompt, (image,), SamplingParams(max_new_tokens=5), (), {}, 10, prompt)
        request, done = EngineRequest(body, words), threading.Event()
        request.wake = lambda request=request, done=done: done.set() if request.outcome is not None else None
        queue.put(request)
        requests.append((prompt, request, done))
    engine.start()
    for prompt, request, done in requests:
        assert done.wait(60)
        alone = answer(
            loaded.model,
            loaded.tokenizer,
            loaded.image_processor,
            prompt,
            [image],
            sampling=SamplingParams(max_new_tokens=5),
        )
        assert request.outcome.answer.token_ids == alone.token_ids
    queue.close()
    assert engine.join(60)


def test_saved_checkpoint_opens_with_the_same_tensors(opened, pixels, tmp_path):
    tokenizer, model, _, _ = opened
    model.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    keys = load_file(tmp_path / "saved" / "model.safetensors").keys()
    assert {key for key in keys if "vision_tower" not in key} == set(SHAPES)
    assert any(key.startswith("transformer.vision_tower.vision_tower.vision_model.") for key in keys)
    again = load_pretrained_model(str(tmp_path / "saved"), None, "again", device="cpu")[1]
    assert torch.equal(again(IDS, images=pixels[:1]).logits, model(IDS, images=pixels[:1]).logits)
    consolidate_ckpt(str(tmp_path / "saved"), str(tmp_path / "new"))
    assert load_file(tmp_path / "new" / "model.safetensors").keys() == keys


def test_projector_alone_opens_with_its_base(folder, tmp_path):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "stage1").mkdir(exist_ok=True)
        shutil.copy(folder / name, tmp_path / "stage1")
    shutil.copytree(folder / "tower", tmp_path / "stage1" / "tower")
    rows = {"transformer.mm_projector.weight": torch.ones(32, 24), "transformer.mm_projector.bias": torch.ones(32)}
    torch.save(rows, tmp_path / "stage1" / "mm_projector.bin")
    base = tmp_path / "base"
    base.mkdir()
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    own = {name: tensor for name, tensor in tensors.items() if "mm_" not in name}
    save_file(own, base / "model.safetensors", {"format": "pt"})
    fields = {name: value for name, value in FIELDS.items() if not name.startswith("mm_")}
    (base / "config.json").write_text(json.dumps({**fields, "model_type": "mpt"}))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / name, base)
    model = load_pretrained_model(str(tmp_path / "stage1"), str(base), "llava-mpt", device="cpu")[1]
    assert isinstance(model, LlavaMptForCausalLM)
    assert torch.equal(model.get_model().mm_projector.weight, torch.ones(32, 24))


@pytest.mark.parametrize(
    ("name", "value"),
    [("attn_config.alibi", False), ("attn_config.qk_ln", True), ("no_bias", False), ("expansion_ratio", 2)],
)
def test_decoder_that_transformers_would_compute_otherwise_raises(folder, tmp_path, name, value):
    copied = shutil.copytree(folder, tmp_path / "copied")
    fields = json.loads((copied / "config.json").read_text())
    target = fields["attn_config"] if "." in name else fields
    target[name.rpartition(".")[2]] = value
    (copied / "config.json").write_text(json.dumps(fields))
    with pytest.raises(CheckpointError, match=f"{name} is {value}; expected"):
        load_pretrained_model(str(copied), None, "mpt", device="cpu")


def test_layout_of_transformers_raises(folder, tmp_path):
    with pytest.raises(CheckpointError, match="'llava_mpt', which is not written in transformers' layout"):
        convert(str(folder), tmp_path / "hub")


@pytest.mark.parametrize("flags", [{}, {"lora_enable": True, "lora_r": 2}, {"tune_mm_mlp_adapter": True}])
def test_training_goes_on_from_the_checkpoint(folder, trained, tmp_path, flags):
    pytest.importorskip("peft")
    tower = {"vision_tower": folder / "tower", "mm_vision_select_layer": -2} if "tune_mm_mlp_adapter" in flags else {}
    out = trained(tmp_path / "out", **tower, model_name_or_path=folder, version="mpt", max_steps=1, **flags)
    base = str(folder) if flags else None
    model = load_pretrained_model(str(out), base, "trained", device="cpu")[1]
    before = torch.load(folder / "pytorch_model.bin", weights_only=True)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert {name for name in before if "mm_projector" in name} <= changed
    assert ("transformer.blocks.0.attn.Wqkv.weight" in changed) != ("tune_mm_mlp_adapter" in flags)
