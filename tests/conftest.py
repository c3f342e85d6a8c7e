"""Fixtures that every test may use."""

import json
import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel, PreTrainedTokenizerFast

from ada.config import AdaLlavaConfig
from ada.model.modeling import AdaLlavaLlamaForCausalLM
from llava.model import LlavaConfig, LlavaLlamaForCausalLM

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory) -> Path:
    """No test sees, or writes, what the user's programs have stored: calibration profiles."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the references' recorded answers (see tests/parity)."""
    folder = Path(os.environ.get("ADA_GOLDEN", ROOT.parent / "shared" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"no golden data at {folder}; set ADA_GOLDEN to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


# A tiny LLaVA with random weights: 2 decoder layers, a tower of 2 x 2 patches, a word a token.
SIDE, HIDDEN, VOCABULARY = 16, 32, 60


def tower_config():
    return CLIPVisionConfig(
        image_size=SIDE,
        patch_size=SIDE // 2,
        hidden_size=24,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=24,
    )


def llava_config(config_class=LlavaConfig, **changes):
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "rope_theta": 5000.0,
        "pad_token_id": 0,
        "initializer_range": 0.2,
        "mm_vision_tower": "tower",
        "mm_hidden_size": 24,
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "image_aspect_ratio": "pad",
    }
    return config_class(**{**settings, **changes})


def tiny_tokenizer():
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{number}": number for number in range(3, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>"
    )


@pytest.fixture(scope="session", name="tiny_tokenizer")
def tiny_tokenizer_maker():
    """``tiny_tokenizer()``: a word a token, as the tiny LLaVA's."""
    return tiny_tokenizer


@pytest.fixture(scope="session")
def make_config():
    """``make_config(**changes)``: the tiny LLaVA's config."""
    return llava_config


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory):
    """``make_checkpoint(**changes)``: a folder with a tiny LLaVA of random weights, its tower in ``tower`` inside;
    on Llama, or another ``model_class``'s decoder."""

    def make(model_class=LlavaLlamaForCausalLM, **changes) -> Path:
        folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
        torch.manual_seed(0)
        CLIPVisionModel(tower_config()).save_pretrained(folder / "tower")
        size = {"height": SIDE, "width": SIDE}
        CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=size).save_pretrained(folder / "tower")
        config = llava_config(model_class.config_class, **changes)
        config._name_or_path = str(folder)
        model = model_class(config)
        model.get_vision_tower().load_model()
        model.save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(make_checkpoint) -> Path:
    """A whole checkpoint of 2 layers. Copy it before changing anything."""
    return make_checkpoint()


@pytest.fixture(scope="session")
def make_adaptive_checkpoint(make_checkpoint):
    """``make_adaptive_checkpoint(**changes)``: a tiny LLaVA with a scheduler. Four layers, the first two always run;
    four heads in units of two; random weights."""

    def make(scheduler_type="H", **changes) -> Path:
        folder = make_checkpoint(**{"num_hidden_layers": 4, **changes})
        plain = LlavaLlamaForCausalLM.from_pretrained(folder)
        fields = {**plain.config.to_dict(), "model_type": AdaLlavaConfig.model_type}
        grid = {"num_prefix_layers": 2, "scheduler_type": scheduler_type, "scheduler_rank": 2}
        config = AdaLlavaConfig.from_dict({**fields, **grid})
        config._name_or_path = str(folder)
        torch.manual_seed(1)
        model = AdaLlavaLlamaForCausalLM(config)
        model.load_state_dict(plain.state_dict(), strict=False)
        model.get_vision_tower().load_model()
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def adaptive_checkpoint(make_adaptive_checkpoint) -> Path:
    """A tiny LLaVA with a scheduler."""
    return make_adaptive_checkpoint()


@pytest.fixture(scope="session")
def picture(tmp_path_factory) -> Path:
    """A picture file."""
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.effect_noise((20, 30), 90).convert("RGB").save(path)
    return path


@pytest.fixture
def checkpoint(tiny_checkpoint, tmp_path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "checkpoint"))


@pytest.fixture
def judge(monkeypatch):
    """A local server that speaks OpenAI's protocol, named by the environment. Replies are taken from ``judge.replies``,
    a number being a status; the last one stays. ``judge.asked``: what came in."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append((self.path, self.headers.get("Authorization"), body))
            reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
            self.send_response(reply if isinstance(reply, int) else 200)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"message": {"content": reply}}]}).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.replies = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}/v1/")
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    yield server
    server.shutdown()
    server.server_close()
