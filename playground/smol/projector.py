"""Makes the projector that stage 1 starts from: it maps a patch's features to the embeddings of the words for it.

The tower knows what has its centre in a patch, and where the patch is; the language model knows words. A projector of
LLaVA's form is fitted to the sum of the embeddings of size, colour, name and place; of random weights its outputs are
sixty times as long. Two things help attention to find what is asked for. The embeddings of colours are much alike, as
are those of sizes: what sets a word apart from the others of its class counts CONTRAST times. And a place is a pair of
coordinates, too, along the differences of "right" and "left", "bottom" and "top": "left of" becomes a difference.

    python -m playground.smol.projector --tower runs/smol/tower --model DIR --out runs/smol/projector/mm_projector.bin
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPVisionModel

from llava.files.atomic_write import atomic_write
from playground.shapes.captions import position_text
from playground.shapes.draw import draw
from playground.shapes.scene import COLOURS, SHAPES, SIDE, SIZES, Item, Scene, sample_scene, scene_rng
from playground.shapes.tower import LAYER, WRITTEN, TowerSize, image_processor

SCENES = 3000
STEPS, BATCH = 2000, 4096  # of patches
CONTRAST = 2.5
ITEM_WEIGHT = 20.0  # of a patch with an item over one without: there are as many more of these


class WordEmbeddings:
    """A language model's embedding of any word, as it stands within a sentence: the mean of its tokens'."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.table: torch.Tensor = model.get_input_embeddings().weight.detach()

    def of(self, word: str) -> torch.Tensor:
        """Return the word's embedding (D,)."""
        ids: list[int] = self.tokenizer(f" {word}", add_special_tokens=False).input_ids
        return self.table[ids].mean(0)

    def contrasted(self, words: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """Return the embeddings (D,) of a class's words, CONTRAST times as far from their mean."""
        vectors = {word: self.of(word) for word in words}
        mean = torch.stack(list(vectors.values())).mean(0)
        return {word: mean + CONTRAST * (vector - mean) for word, vector in vectors.items()}


class PatchTargets:
    """What the projector is to make of each patch of a scene: its place, and the item that has its centre there."""

    def __init__(self, size: TowerSize, embeddings: WordEmbeddings) -> None:
        self.grid, self.embeddings = size.grid, embeddings
        self.known = embeddings.contrasted(SIZES) | embeddings.contrasted(COLOURS) | embeddings.contrasted(SHAPES)
        right, down = (embeddings.of(b) - embeddings.of(a) for a, b in (("left", "right"), ("top", "bottom")))
        at = (torch.arange(size.grid) + 0.5) / size.grid - 0.5
        positions = [
            self._sum(position_text(Item("shape", "", "", "", *self._centre(index))).split()) for index in self
        ]
        self.positions = torch.stack(positions) + at.repeat(size.grid)[:, None] * right
        self.positions += at.repeat_interleave(size.grid)[:, None] * down

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.grid**2))

    def __call__(self, scene: Scene) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the targets (N, D) of a scene's patches in reading order, and which (N,) have an item's centre."""
        wanted, there = self.positions.clone(), torch.zeros(self.grid**2, dtype=torch.bool)
        for item in scene.items:
            row, column = (min(self.grid - 1, at * self.grid // SIDE) for at in (item.y, item.x))
            wanted[row * self.grid + column] += self._sum([item.size, item.colour, item.name])
            there[row * self.grid + column] = True
        return wanted, there

    def _centre(self, index: int) -> tuple[int, int]:
        row, column = divmod(index, self.grid)
        return int((column + 0.5) * SIDE / self.grid), int((row + 0.5) * SIDE / self.grid)

    def _sum(self, words: list[str]) -> torch.Tensor:
        for word in words:
            if word not in self.known:
                self.known[word] = self.embeddings.of(word)
        return torch.stack([self.known[word] for word in words]).sum(0)


@torch.inference_mode()
def patches(tower: CLIPVisionModel, size: TowerSize, embeddings: WordEmbeddings) -> tuple[torch.Tensor, ...]:
    """Return features (N, C) and targets (N, D) of the patches of SCENES scenes, and which have an item's centre."""
    processor, target = image_processor(size.side), PatchTargets(size, embeddings)
    features, targets, there = [], [], []
    for index in tqdm(range(SCENES), desc="patches"):
        scene = sample_scene(scene_rng("train", 1, index), "train", written=WRITTEN)
        pixels = processor(draw(scene, size.side), return_tensors="pt")["pixel_values"]
        features.append(tower(pixels, output_hidden_states=True).hidden_states[LAYER][0, 1:])
        wanted, centres = target(scene)
        targets.append(wanted)
        there.append(centres)
    return torch.cat(features), torch.cat(targets), torch.cat(there)


def fit(features: torch.Tensor, targets: torch.Tensor, there: torch.Tensor) -> tuple[nn.Sequential, float]:
    """Fit a projector of type ``mlp2x_gelu``; return it, and the share of the items' variance that it explains."""
    torch.manual_seed(0)
    width = targets.shape[1]
    projector = nn.Sequential(nn.Linear(features.shape[1], width), nn.GELU(), nn.Linear(width, width))
    optimizer = torch.optim.AdamW(projector.parameters(), 1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS, pct_start=0.05)
    weights = torch.where(there, ITEM_WEIGHT, 1.0)
    for _ in tqdm(range(STEPS), desc="projector"):
        rows = torch.randint(len(features), (BATCH,))
        errors = (projector(features[rows]) - targets[rows]).square().mean(1)
        loss = (errors * weights[rows]).sum() / weights[rows].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        wanted = targets[there]
        left = (projector(features[there]) - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()
    return projector, 1 - float(left)


def main() -> None:
    """Run the program with the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower", type=Path, required=True, help="folder of the vision tower")
    parser.add_argument("--model", type=Path, required=True, help="folder of the language model")
    parser.add_argument("--out", type=Path, required=True, help="file mm_projector.bin to write")
    args = parser.parse_args()
    tower = CLIPVisionModel.from_pretrained(args.tower, dtype=torch.float32).eval()
    config = tower.config
    size = TowerSize(config.image_size, config.patch_size, config.hidden_size, config.num_hidden_layers)
    projector, explained = fit(*patches(tower, size, WordEmbeddings(args.model)))
    buffer = io.BytesIO()
    torch.save({f"model.mm_projector.{name}": value for name, value in projector.state_dict().items()}, buffer)
    atomic_write(args.out, buffer.getvalue())
    print(f"{args.out}: {explained:.1%} of the variance of items' words")


if __name__ == "__main__":
    main()
