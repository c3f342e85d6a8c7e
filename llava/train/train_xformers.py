"""``train.py`` with PyTorch's own attention, under the name that launch lines for xformers have.

The xformers patch was for GPUs without flash attention. PyTorch's ``scaled_dot_product_attention`` serves those, with
the same memory-saving kernel; start runs with ``llava/train/train.py --attn_implementation sdpa``.
"""

import logging

from llava.train.train import main

NOTICE = "xformers is not used any more: training with --attn_implementation sdpa; start llava/train/train.py for that"

if __name__ == "__main__":
    logging.getLogger("llava.train").warning(NOTICE)
    raise SystemExit(main(attn_implementation="sdpa"))
