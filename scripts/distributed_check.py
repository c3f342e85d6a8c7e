"""Compares training in one CPU process with training in two, by the recipes' scripts, on the bundled base model.

For each kind of scheduler and each ZeRO stage: no run hangs; every step's loss equals that of one process; the result
answers in the CLI; a run that is resumed from a checkpoint has the losses of the uninterrupted one, in two processes
and, from DeepSpeed's universal form of the checkpoint, in one. The data give each process text-only batches, batches
with images and mixed ones, in every combination.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

GLOBAL_BATCH = 4  # samples a step, over all processes
# Samples of four steps: P with an image, T without. Of two processes, the first one gets the first two of each step.
PATTERN = "TTPPPPTTTPPTTTTTPPPP"
TOLERANCE = 1e-3
FLAGS = """--bf16 False --logging_steps 1 --train_sampling_strategy sequential --group_by_modality_length False
    --save_total_limit 2 --check_data False --dataloader_num_workers 0 --dataloader_persistent_workers False
    --disable_tqdm True --model_max_length 256""".split()


def main() -> int:
    """Run all checks; return 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/distributed"),
        help="folder for the runs; it is emptied first (default: %(default)s)",
    )
    parser.add_argument(
        "--kinds", nargs="+", default=["heads", "layers"], choices=["heads", "layers"], help="schedulers to train"
    )
    parser.add_argument(
        "--stages", nargs="+", type=int, default=[2, 3], choices=[2, 3], help="stages of DeepSpeed's ZeRO"
    )
    parser.add_argument("--steps", type=int, default=15, help="optimizer steps of a run (default: %(default)s)")
    parser.add_argument(
        "--limit", type=int, default=300, help="longest time of a run, in seconds (default: %(default)s)"
    )
    args, more = parser.parse_known_args()  # the other flags go to the recipes
    shutil.rmtree(args.out, ignore_errors=True)
    check = Check(args.out.resolve(), args.steps, args.limit, [*FLAGS, *more])
    check.make_data()
    print(f"largest difference of losses over {args.steps} steps, {GLOBAL_BATCH} samples a step, float32")
    print(f"{'run':<16}{'to one process':>16}{'resumed by two':>16}{'resumed by one':>16}  answer", flush=True)
    worst = 0.0
    for kind in args.kinds:
        alone = check.train(kind, "alone", processes=1)
        for stage in args.stages:
            worst = max(worst, check.compare(kind, stage, losses(alone)))
    print(f"largest of all: {worst:.1e}; allowed: {TOLERANCE:.0e}")
    return int(not worst <= TOLERANCE)  # NaN fails


class Check:
    """The runs in one folder, and their comparison."""

    def __init__(self, out: Path, steps: int, limit: int, flags: list[str]) -> None:
        self.out, self.steps, self.limit, self.flags = out, steps, limit, flags
        self.data, self.images = out / "mixed.json", out / "data" / "images"

    def make_data(self) -> None:
        """Write training data of scenes, each with its image or described in words; short, so that a step is fast."""
        count = self.steps * GLOBAL_BATCH
        made = ["--out", str(self.out / "data"), "--scenes", str(count), "--test-questions", "1"]
        self.run([sys.executable, "-m", "playground.shapes.generate", *made], self.out / "data.log")
        records = {"P": self.read("conversations"), "T": self.read("texts")}
        chosen = [records[PATTERN[index % len(PATTERN)]][index] for index in range(count)]
        for record in chosen:
            record["conversations"] = record["conversations"][:2]
        self.data.write_text(json.dumps(chosen), encoding="utf-8")

    def read(self, name: str) -> list[dict[str, Any]]:
        """Read one of the generator's training files."""
        records: list[dict[str, Any]] = json.loads((self.out / "data" / f"{name}.json").read_text(encoding="utf-8"))
        return records

    def train(self, kind: str, name: str, processes: int, stage: int | None = None) -> Path:
        """Run a recipe, or resume it where its folder has a checkpoint; return the folder."""
        folder = self.out / f"{kind}-{name}"
        settings = {
            "PRESET": "shapes",
            "DATA": self.data,
            "IMAGES": self.images,
            "OUT": folder,
            "NPROC": processes,
            "BATCH": GLOBAL_BATCH // processes,
            "STEPS": self.steps,
            "SAVE_STEPS": 2 * self.steps // 3,
            "DEEPSPEED": "" if stage is None else f"scripts/zero{stage}.json",
        }
        command = ["bash", f"scripts/v1_5/finetune_ada_{kind}.sh", *self.flags]
        self.run(command, folder.with_suffix(".log"), {key: str(value) for key, value in settings.items()})
        return folder

    def compare(self, kind: str, stage: int, expected: list[float]) -> float:
        """Print a line of the table; return the largest difference in it."""
        straight = self.train(kind, f"zero{stage}", 2, stage)
        again = self.train(kind, self.stopped(straight, "resumed"), 2, stage)
        fewer = self.stopped(straight, "fewer")
        (state,) = (self.out / f"{kind}-{fewer}").glob("checkpoint-*/global_step*")
        form = ["--inject_missing_state", "--input_folder", str(state), "--output_folder", f"{state}_universal"]
        log = self.out / f"{kind}-{fewer}.form.log"
        self.run([sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", *form], log)
        alone = self.train(kind, fewer, 1, stage)
        differences = [largest(expected, losses(folder)) for folder in (straight, again, alone)]
        figures = "".join(f"{difference:>16.1e}" for difference in differences)
        print(f"{kind + ' zero' + str(stage):<16}{figures}  {self.answer(straight)}", flush=True)
        return max(differences)

    def stopped(self, run: Path, name: str) -> str:
        """Copy a finished run as it was after its first checkpoint; return the copy's name for ``train``."""
        kind, _, stage = run.name.partition("-")
        first = min(run.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
        shutil.copytree(first, self.out / f"{kind}-{stage}-{name}" / first.name)
        return f"{stage}-{name}"

    def answer(self, model: Path) -> str:
        """Return the CLI's answer to a question about an image, under a budget."""
        image = next(self.images.rglob("*.png"))
        flags = ["--model-path", str(model), "--image-file", str(image), "--latency-budget", "0.6"]
        log = model.with_suffix(".cli.log")
        self.run([sys.executable, "-m", "llava.serve.cli", *flags], log, asked="How many objects are there?\n")
        (answer,) = (line for line in log.read_text(encoding="utf-8").splitlines() if line.startswith("ASSISTANT: "))
        return answer.removeprefix("ASSISTANT: ")

    def run(self, command: list[str], log: Path, settings: dict[str, str] | None = None, asked: str = "") -> None:
        """Run a command in its own process group, its output in ``log``. Raises SystemExit where it fails or hangs."""
        log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **(settings or {})}
        with log.open("a") as output:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )
            try:
                process.communicate(asked, timeout=self.limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait()
                raise SystemExit(f"{log}: not done within {self.limit} s: {' '.join(command)}") from None
        if process.returncode:
            end = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-30:])
            raise SystemExit(f"{end}\n{log}: exit code {process.returncode} of {' '.join(command)}")


def losses(folder: Path) -> list[float]:
    """Return every step's loss."""
    state = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))
    return [line["loss"] for line in state["log_history"] if "loss" in line]


def largest(first: list[float], second: list[float]) -> float:
    """Return the largest difference of two curves of equal length."""
    return max(abs(one - other) for one, other in zip(first, second, strict=True))


if __name__ == "__main__":
    raise SystemExit(main())
