"""``train.py`` with flash attention: the memory-saving entry point that launch lines name."""

from llava.train.train import main

if __name__ == "__main__":
    raise SystemExit(main(attn_implementation="flash_attention_2"))
