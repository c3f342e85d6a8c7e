"""llama.cpp as a peer: its steps, and what is said where it is missing."""

import sys
import types

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ada.bench.decode import llama_cpp as peer
from llava.errors import OptionError


@pytest.mark.parametrize(("module", "package"), [("llama_cpp", "llama-cpp-python"), ("gguf", "gguf")])
def test_missing_package_is_a_user_error_that_names_it(monkeypatch, module, package) -> None:
    for name in ("llama_cpp", "gguf"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(OptionError, match=rf"needs {package}.*pip install llama-cpp-python gguf"):
        peer.require_llama_cpp()


def test_prompt_is_read_at_once_and_then_token_after_token(monkeypatch, make_subject) -> None:
    calls: list = []

    class Llama:
        """Records what it is asked to do."""

        def __init__(self, path: str, **keywords) -> None:
            calls.append(keywords["n_ctx"])

        def reset(self) -> None:
            calls.append("reset")

        def eval(self, tokens: list[int]) -> None:
            calls.append(tokens)

    monkeypatch.setattr(peer, "require_llama_cpp", lambda: (types.SimpleNamespace(Llama=Llama), None))
    monkeypatch.setattr(peer, "write_gguf", lambda *_: 1000)
    model = make_subject("H").model
    way = peer.llama_cpp(model, steps=4, positions=9)
    times = way(torch.tensor([[5, 6]]), 1.0)
    assert calls == [9, "reset", [5, 6], [5], [6], [5], [6]]
    assert times.plans == () and 0 <= times.first_ms <= times.second_ms
    half_of_the_steps, numbers = 2, 2 * 4 * model.config.hidden_size  # of a column: keys and values of four layers
    assert times.step_bytes == 1000 + 2 * numbers * (2 + half_of_the_steps)


@torch.no_grad()
def test_peer_computes_the_models_logits(tmp_path) -> None:
    """Where the packages are installed: Q8_0 changes logits by little."""
    cpp, gguf = pytest.importorskip("llama_cpp"), pytest.importorskip("gguf")
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 8, "num_key_value_heads": 4}
    config = LlamaConfig(**sizes, num_hidden_layers=2, vocab_size=50, initializer_range=0.2)  # positions matter
    model, path = LlamaForCausalLM(config).eval(), tmp_path / "decoder.gguf"
    peer.write_gguf(model, path, gguf)
    llama = cpp.Llama(str(path), n_ctx=32, logits_all=True, verbose=False)
    ids = torch.randint(3, 50, (1, 24))
    llama.eval(ids[0].tolist())
    expected = model(input_ids=ids).logits[0]
    error = (torch.tensor(llama.scores[:24]) - expected).norm() / expected.norm()
    assert error < 0.1  # 1 where heads' channels stand in the wrong order
