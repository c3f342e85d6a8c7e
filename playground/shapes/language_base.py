"""Makes what the language stage starts from: a small Llama with random weights, and the shapes world's tokenizer.

python -m playground.shapes.language_base --data playground/data/shapes/conversations.json --out runs/shapes/base
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from playground.shapes.tokenizer import MAX_LENGTH, conversation_texts, train_tokenizer


def language_config(vocabulary: int) -> LlamaConfig:
    """Return a config of Vicuna's architecture: multi-head attention, 10 layers of 192, 4.0 million parameters."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=192,
        intermediate_size=400,
        num_hidden_layers=10,
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=MAX_LENGTH,
        rms_norm_eps=1e-5,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


def main() -> None:
    """Run the program with the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="conversations.json, for the tokenizer")
    parser.add_argument("--out", type=Path, required=True, help="folder for model and tokenizer")
    args = parser.parse_args()
    tokenizer = train_tokenizer(conversation_texts(args.data))
    torch.manual_seed(0)
    model = LlamaForCausalLM(language_config(len(tokenizer)))
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    print(f"{args.out}: {model.num_parameters() / 1e6:.2f} million parameters, {len(tokenizer)} tokens")


if __name__ == "__main__":
    main()
