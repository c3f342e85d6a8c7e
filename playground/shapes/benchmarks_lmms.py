"""A task for lmms-eval: questions of every kind, one an image, in a folder for ``--include_path``.

The questions are a file as LLaVA's programs read it, so that both can be asked the same. The functions that the task's
YAML names are here; lmms-eval imports them. Paths are relative to the folder, so that it can be moved: lmms-eval is to
be run in it (``scripts/v1_5/eval/lmms.sh`` does that).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from ada.eval.questions.exact_match import is_right
from llava.files.atomic_write import atomic_write
from llava.mm_utils import load_image
from playground.shapes.benchmark_scenes import Bench
from playground.shapes.questions import KINDS

TASK = "shapes_questions"
QUESTIONS = "questions.jsonl"
METRICS = ("accuracy", *(f"accuracy_{kind}" for kind in KINDS))
YAML = f"""\
# Run in this folder: the paths below are relative.
task: {TASK}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {QUESTIONS}
test_split: test
output_type: generate_until
doc_to_visual: !function {__name__}.images
doc_to_text: text
doc_to_target: answer
process_results: !function {__name__}.marks
generation_kwargs:
  max_new_tokens: 128
  do_sample: false
  until: []
metric_list:
"""
METRIC = """\
- metric: {}
  aggregation: mean
  higher_is_better: true
"""


def lmms(bench: Bench) -> None:
    """Write the task's YAML, its questions and their images."""
    rows = []
    for number, scene, question in bench.asked(tuple(KINDS.values())):
        image = f"images/{number:06d}.png"
        bench.save_image(scene, image)
        fields = {"question_id": number, "image": image, "text": question.prompt}
        rows.append({**fields, "category": question.kind, "answer": question.answer})
    bench.write_lines(QUESTIONS, rows)
    atomic_write(bench.folder / f"{TASK}.yaml", YAML + "".join(METRIC.format(name) for name in METRICS))


def images(doc: Mapping[str, Any]) -> list[Image.Image]:
    """Return a question's image, as lmms-eval takes it."""
    return [load_image(doc["image"])]


def __getattr__(name: str) -> Any:
    """Return ``images`` by the name that tasks written before 0.2 give it."""
    if name == "pictures":
        return images
    raise AttributeError(f"module {__name__} has no attribute {name}")


def marks(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return 1 for a right answer, 0 for a wrong one: over all, and for the question's kind."""
    mark = float(is_right(results[0], doc["answer"]))
    return {"accuracy": mark, f"accuracy_{doc['category']}": mark}
