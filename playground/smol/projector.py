"""Makes the projector that stage 1 starts from: it maps a patch's features to the embeddings of the words for it.

The tower knows what has its centre in a patch, and where the patch is; the language model knows words. A projector of
LLaVA's form is fitted to the sum of the embeddings of size, colour, name and place, of the size of one embedding; of
random weights its outputs are sixty times as long. From there captions are learned within 400 steps of 8.

    python -m playground.smol.projector --tower runs/smol/tower --model DIR --out runs/smol/projector/mm_projector.bin
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, CLIPVisionModel

from llava.files.atomic_write import atomic_write
from playground.shapes.captions import position_text
from playground.shapes.draw import draw
from playground.shapes.scene import SIDE, Item, Scene, sample_scene, scene_rng
from playground.shapes.tower import LAYER, WRITTEN, TowerSize, image_processor

SCENES = 3000
STEPS, BATCH = 2000, 4096  # of patches
ITEM_WEIGHT = 20.0  # of a patch with an item over one without: there are as many more of these


class WordEmbeddings:
    """A language model's embedding of any word, as it stands within a sentence: the mean of its tokens'."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.table: torch.Tensor = model.get_input_embeddings().weight.detach()

    def of(self, words: str) -> torch.Tensor:
        """Return the sum of the words' embeddings (D,)."""
        return torch.stack([self.table[self._ids(word)].mean(0) for word in words.split()]).sum(0)

    def _ids(self, word: str) -> list[int]:
        ids: list[int] = self.tokenizer(f" {word}", add_special_tokens=False).input_ids
        return ids


def patch_words(scene: Scene, size: TowerSize) -> list[str]:
    """Return the words for each patch, in reading order: of its place, and of the item that has its centre there."""
    side, words = SIDE / size.grid, []
    for row in range(size.grid):
        for column in range(size.grid):
            x, y = (int((at + 0.5) * side) for at in (column, row))
            words.append(position_text(Item("shape", "", "", "", x, y)))
    for item in scene.items:
        row, column = (min(size.grid - 1, at * size.side // (SIDE * size.patch)) for at in (item.y, item.x))
        words[row * size.grid + column] += f" {item.size} {item.colour} {item.name}"
    return words


@torch.inference_mode()
def patches(tower: CLIPVisionModel, size: TowerSize, embeddings: WordEmbeddings) -> tuple[torch.Tensor, ...]:
    """Return features (N, C) and targets (N, D) of the patches of SCENES scenes, and which have an item's centre."""
    processor, known = image_processor(size.side), dict[str, torch.Tensor]()
    features, targets, there = [], [], []
    for index in tqdm(range(SCENES), desc="patches"):
        scene = sample_scene(scene_rng("train", 1, index), "train", written=WRITTEN)
        pixels = processor(draw(scene, size.side), return_tensors="pt")["pixel_values"]
        features.append(tower(pixels, output_hidden_states=True).hidden_states[LAYER][0, 1:])
        for words in patch_words(scene, size):
            if words not in known:
                known[words] = embeddings.of(words)
            targets.append(known[words])
            there.append(len(words.split()) > 2)
    wanted = torch.stack(targets)
    wanted *= embeddings.table.norm(dim=1).mean() / wanted[torch.tensor(there)].norm(dim=1).mean()
    return torch.cat(features), wanted, torch.tensor(there)


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
