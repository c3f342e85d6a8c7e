"""Writes every benchmark's files for the shapes world, in the folders where LLaVA's evaluation scripts look for them.

python -m playground.shapes.generate --out runs/shapes/data --scenes 60000 --benchmarks 600 --only-benchmarks
DATA=runs/shapes/data/eval CKPT=ada/checkpoints/shapes-H BUDGET=0.6 bash scripts/v1_5/eval/pope.sh
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from tqdm import tqdm

from playground.shapes.benchmark_scenes import Bench, Look, Write
from playground.shapes.benchmarks_choice import mmbench, mmbench_cn, qbench, science_qa, seed_bench
from playground.shapes.benchmarks_lmms import lmms
from playground.shapes.benchmarks_open import gqa, llava_bench, mm_vet, textvqa, vizwiz, vqav2
from playground.shapes.benchmarks_yes_no import mme, pope

BENCHMARKS: dict[str, Write] = {
    "pope": pope,
    "MME": mme,
    "scienceqa": science_qa,
    "mmbench": mmbench,
    "mmbench_cn": mmbench_cn,
    "seed_bench": seed_bench,
    "qbench": qbench,
    "vqav2": vqav2,
    "gqa": gqa,
    "vizwiz": vizwiz,
    "textvqa": textvqa,
    "mm-vet": mm_vet,
    "llava-bench-in-the-wild": llava_bench,
    "lmms": lmms,
}
"""Folder below ``eval/`` -> what writes it."""


def write_benchmarks(folder: Path, seed: int, count: int, taken: Collection[Look]) -> None:
    """Write about ``count`` questions of each benchmark; of POPE and MME, all questions of an image.

    No scene looks like one that is ``taken``. The same seed gives the same bytes.
    """
    for name, write in tqdm(BENCHMARKS.items(), desc="benchmarks"):
        write(Bench(name, folder / name, seed, count, frozenset(taken)))
