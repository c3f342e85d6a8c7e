"""Draws the images of the demo, and asks a model about them under three budgets.

python -m playground.smol.demo --out playground/smol
python -m playground.smol.demo --model-path ada/checkpoints/smol-H    # prints a table
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llava.generation import SamplingParams
from llava.model.loaded_model import open_model
from llava.program import run_program
from llava.serve.chat_session import ChatSession
from playground.shapes.draw import draw
from playground.shapes.saving import save_image
from playground.shapes.scene import Item, Scene

SIDE = 336  # pixels: twice the vision tower's input size, for people
BUDGETS = (1.0, 0.7, 0.5)


def _shapes(*described: tuple[str, str, str, int, int]) -> list[Item]:
    return [Item("shape", name, colour, size, x, y) for size, colour, name, x, y in described]


SCENES = {
    "demo.png": Scene(
        (
            *_shapes(
                ("large", "blue", "star", 17, 16),
                ("large", "red", "circle", 51, 17),
                ("small", "red", "square", 79, 18),
                ("large", "green", "triangle", 80, 50),
                ("large", "red", "diamond", 18, 78),
                ("small", "orange", "cross", 81, 76),
            ),
            Item("word", "sun", "purple", "large", 34, 50),
            Item("digit", "7", "black", "large", 49, 80),
        )
    ),
    "demo-stars.png": Scene(
        tuple(
            _shapes(
                ("large", "yellow", "star", 17, 17),
                ("small", "purple", "star", 52, 14),
                ("large", "blue", "star", 78, 48),
                ("large", "green", "circle", 18, 79),
                ("small", "green", "circle", 46, 52),
                ("large", "black", "square", 79, 80),
            )
        )
    ),
    "demo-few.png": Scene(
        (
            *_shapes(("large", "orange", "square", 16, 49), ("small", "blue", "cross", 81, 47)),
            Item("digit", "4", "brown", "large", 48, 17),
        )
    ),
}
# What a stranger may type, made up before any model was asked.
QUESTIONS = (
    ("demo.png", "What color is the triangle?"),
    ("demo.png", "How many red objects are there?"),
    ("demo.png", "What's written in the picture?"),
    ("demo.png", "Is the star blue or yellow?"),
    ("demo-stars.png", "How many stars do you see?"),
    ("demo-stars.png", "Is there a red circle?"),
    ("demo-stars.png", "Is the purple star big or small?"),
    ("demo-few.png", "Is the square left or right of the cross?"),
    ("demo-few.png", "What number is shown?"),
    ("demo-few.png", "Describe the picture."),
)


def draw_all(out: Path) -> None:
    """Write the images into a folder."""
    for name, scene in SCENES.items():
        save_image(scene, out / name, SIDE)


def ask_all(model_path: str, image_tokens: str | None) -> None:
    """Print a Markdown table: each question, and the model's answers at BUDGETS."""
    options = {"model_path": model_path, "image_tokens": image_tokens, "latency_budget": BUDGETS[0]}
    loaded = open_model(options)
    options |= loaded.options
    sampling = SamplingParams(0.0, None, 1, max_new_tokens=120)
    print("| image | question |", " | ".join(f"at {budget:g}" for budget in BUDGETS), "|")
    print("|---|---|" + "---|" * len(BUDGETS))
    for name, question in QUESTIONS:
        answers = []
        for budget in BUDGETS:
            asked = {**options, "latency_budget": budget}
            parts = loaded.model, loaded.tokenizer, loaded.image_processor, loaded.template, sampling, asked
            session = ChatSession(*parts, images=[draw(SCENES[name], SIDE)])
            answers.append(session.ask(question, lambda piece: None).text)
        print(f"| `{name}` | {question} |", " | ".join(answers), "|", flush=True)


def run(args: argparse.Namespace) -> None:
    """Do what the flags ask for."""
    if args.out is not None:
        draw_all(args.out)
    if args.model_path is not None:
        ask_all(args.model_path, args.image_tokens)


def main() -> int:
    """Run the program with the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder to draw the images into")
    parser.add_argument("--model-path", help="model to ask under budgets")
    parser.add_argument("--image-tokens", help="image tokens to read, as 25%%; by default the model's own choice")
    args = parser.parse_args()
    if args.out is None and args.model_path is None:
        parser.error("give --out to draw the images, --model-path to ask about them, or both")
    return run_program(lambda: run(args))


if __name__ == "__main__":
    raise SystemExit(main())
