"""Pre-trains the small CLIP vision tower: every patch learns which item has its centre there, and what it is.

A LLaVA stands on a vision tower that already sees. This one learns shapes, colours, sizes, digits and words of the
shapes world, patch by patch, before any language model looks at it.

    python -m playground.shapes.tower --out runs/shapes/tower --steps 6000
    python -m playground.shapes.tower --out runs/smol/tower --side 168 --patch 14 --width 160 --layers 5
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModel

from llava.files.atomic_write import atomic_path
from playground.shapes.draw import draw
from playground.shapes.scene import COLOURS, DIGITS, SHAPES, SIDE, SIZES, WORDS, Scene, sample_scene, scene_rng

NAMES = ("", *SHAPES, *DIGITS, *WORDS)  # "" where no item has its centre
LAYER = -1  # the hidden states that LLaVA will select
SAVE_EVERY = 500  # steps
IGNORED = -100
WRITTEN = 0.6  # share of the images with a word, and with a digit: there are more of them to learn than of shapes
# Most patches are no item's centre, and a word is harder to learn than a shape.
NAME_WEIGHTS = torch.tensor([0.05] + [1.0] * len(SHAPES + DIGITS) + [2.0] * len(WORDS))


@dataclass(frozen=True)
class TowerSize:
    """A tower's measures: ``side`` of the image and of a ``patch`` in pixels, ``width`` in channels, 32 a head."""

    side: int = SIDE
    patch: int = 16
    width: int = 128
    layers: int = 4

    @property
    def grid(self) -> int:
        """Number of patches a side."""
        return self.side // self.patch

    @property
    def targets(self) -> dict[str, int]:
        """How many classes there are of everything that a patch learns."""
        return {
            "name": len(NAMES),
            "colour": len(COLOURS),
            "size": len(SIZES),
            "row": self.grid,
            "column": self.grid,
        }


def tower_config(size: TowerSize) -> CLIPVisionConfig:
    """Return the tower's config; with the default size 36 patches, 0.8 million parameters."""
    return CLIPVisionConfig(
        image_size=size.side,
        patch_size=size.patch,
        hidden_size=size.width,
        intermediate_size=3 * size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=size.width // 32,
        projection_dim=size.width,
        attn_implementation="eager",  # SDPA's backward is slow on CPUs for so few positions
    )


def image_processor(side: int) -> CLIPImageProcessorPil:
    """Return CLIP's image processor for images of ``side`` pixels."""
    size = {"height": side, "width": side}
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=size)


def patch_targets(scene: Scene, size: TowerSize = TowerSize()) -> dict[str, torch.Tensor]:
    """Return the targets of each patch, in reading order; colour and size only where an item has its centre."""
    grid = size.grid
    targets = {key: torch.full((grid * grid,), IGNORED) for key in ("colour", "size")}
    targets["name"] = torch.zeros(grid * grid, dtype=torch.long)
    patches = torch.arange(grid * grid)
    targets["row"], targets["column"] = patches // grid, patches % grid
    for item in scene.items:
        row, column = (min(grid - 1, at * size.side // (SIDE * size.patch)) for at in (item.y, item.x))
        patch = row * grid + column
        targets["name"][patch] = NAMES.index(item.name)
        targets["colour"][patch] = COLOURS.index(item.colour)
        targets["size"][patch] = SIZES.index(item.size)
    return targets


class Scenes(Dataset):
    """Fresh scenes, drawn on demand: pixels (3, side, side) and targets."""

    def __init__(self, size: TowerSize, seed: int, count: int) -> None:
        self.size, self.seed, self.count, self.processor = size, seed, count, image_processor(size.side)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        scene = sample_scene(scene_rng("train", self.seed, index), "train", written=WRITTEN)
        pixels = self.processor(draw(scene, self.size.side), return_tensors="pt")["pixel_values"][0]
        return pixels, patch_targets(scene, self.size)


class PatchReader(nn.Module):
    """The tower and one linear reader for each target."""

    def __init__(self, size: TowerSize) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(tower_config(size))
        self.readers = nn.ModuleDict({key: nn.Linear(size.width, count) for key, count in size.targets.items()})

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """Map pixels (B, 3, side, side) to logits (B, patches, classes) by target."""
        hidden = self.tower(pixels, output_hidden_states=True).hidden_states[LAYER][:, 1:]
        return {key: reader(hidden) for key, reader in self.readers.items()}


def loss_and_accuracy(
    logits: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the summed cross-entropies, and accuracies where an item is, of words apart from other names."""
    losses, right = [], {}
    for key, scores in logits.items():
        weight = NAME_WEIGHTS if key == "name" else None
        losses.append(
            functional.cross_entropy(scores.flatten(0, 1).float(), targets[key].flatten(), weight, ignore_index=IGNORED)
        )
        right[key] = scores.argmax(-1) == targets[key]
    name = targets["name"]
    word, there = name >= NAMES.index(WORDS[0]), name > 0
    where = {"name": (right["name"], there & ~word), "word": (right["name"], word)}
    where |= {key: (right[key], there) for key in ("colour", "size")}
    accuracy = {key: hits[at].float().mean().item() for key, (hits, at) in where.items()}
    return torch.stack(losses).sum(), accuracy


def train(
    out: Path, steps: int, batch: int, learning_rate: float, workers: int, size: TowerSize = TowerSize()
) -> dict[str, float]:
    """Train, or resume from ``out/state.pt``, and write a complete tower folder; return the last accuracies."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    random.seed(0)
    model = PatchReader(size)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.05)
    state = out / "state.pt"
    done = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        done = saved["step"]
    accuracy: dict[str, float] = {}
    scenes = Scenes(size, seed=1 + done, count=(steps - done) * batch)
    progress = tqdm(DataLoader(scenes, batch, num_workers=workers), initial=done, total=steps, desc="tower")
    for step, (pixels, targets) in enumerate(progress, start=done + 1):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pixels)
        loss, accuracy = loss_and_accuracy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}", **{k: f"{v:.3f}" for k, v in accuracy.items()})
        if step % SAVE_EVERY == 0 or step == steps:
            save_state(state, step, model=model, optimizer=optimizer, schedule=schedule)
    model.tower.to(torch.bfloat16).save_pretrained(out)
    image_processor(size.side).save_pretrained(out)
    return accuracy


def save_state(path: Path, step: int, **parts: Any) -> None:
    """Write everything that a resumed run needs, atomically."""
    with atomic_path(path) as temporary:
        torch.save({"step": step, **{name: x.state_dict() for name, x in parts.items()}}, temporary)


def main() -> None:
    """Run the program with the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the tower, and of the state to resume from")
    parser.add_argument("--steps", type=int, default=6000, help="optimizer steps")
    parser.add_argument("--batch", type=int, default=64, help="images of each step")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak of the one-cycle schedule")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw scenes")
    size = TowerSize()
    parser.add_argument("--side", type=int, default=size.side, help="pixels a side of an image")
    parser.add_argument("--patch", type=int, default=size.patch, help="pixels a side of a patch, a divisor of --side")
    parser.add_argument("--width", type=int, default=size.width, help="channels, a multiple of 32")
    parser.add_argument("--layers", type=int, default=size.layers, help="layers")
    args = parser.parse_args()
    if args.side % args.patch or args.width % 32:
        parser.error(f"--patch {args.patch} must divide --side {args.side}, and 32 must divide --width {args.width}")
    size = TowerSize(args.side, args.patch, args.width, args.layers)
    accuracy = train(args.out, args.steps, args.batch, args.learning_rate, args.workers, size)
    print(json.dumps(accuracy))


if __name__ == "__main__":
    main()
