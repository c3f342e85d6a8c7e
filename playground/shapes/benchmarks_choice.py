"""Benchmarks of multiple choice: ScienceQA, MMBench, SEED-Bench, Q-Bench."""

from __future__ import annotations

import base64
import csv
import io

from llava.files.atomic_write import atomic_write
from playground.shapes.benchmark_scenes import Bench, Row, options_of
from playground.shapes.captions import caption
from playground.shapes.questions import KINDS, Question
from playground.shapes.saving import png
from playground.shapes.scene import COLOURS, DIGITS, SHAPES, WORDS

COLUMNS = "index question hint A B C D answer category image source l2-category comment split".split()
TEXT_ONLY = 5  # one question in so many has its scene described in words, without an image


def topic_of(question: Question) -> str:
    """Return what a choice is about, by its options."""
    text, options = options_of(question)
    if set(options) <= set(DIGITS):
        return "counting" if text.startswith(("How many", "Count", "What is the number of")) else "reading"
    return next(s for s, pool in {"colour": COLOURS, "shape": SHAPES, "reading": WORDS}.items() if options[0] in pool)


def science_qa(bench: Bench) -> None:
    """Write questions with an image, and some whose scene is described in words."""
    records, problems = [], {}
    for number, scene, question in bench.asked([KINDS["choice"]]):
        text, options = options_of(question)
        text_only = number % TEXT_ONLY == TEXT_ONLY - 1
        key, asked = str(number), f"{caption(scene)}\n{question.text}" if text_only else question.text
        problems[key] = {
            "question": text,
            "choices": options,
            "answer": "ABCD".index(question.answer),
            "hint": caption(scene) if text_only else "",
            "lecture": "",
            "solution": "" if text_only else caption(scene),
            "image": None if text_only else "image.png",
            "split": "test",
        }
        record: Row = {"id": key}
        if not text_only:
            record["image"] = f"{key}/image.png"
            bench.save_image(scene, f"images/test/{key}/image.png")
        record["conversations"] = [
            {"from": "human", "value": asked if text_only else f"<image>\n{asked}"},
            {"from": "gpt", "value": f"The answer is {question.answer}."},
        ]
        records.append(record)
    bench.write_json("llava_test_CQM-A.json", records)
    bench.write_json("problems.json", problems)
    bench.write_json("pid_splits.json", {"test": list(problems)})


def _mmbench(bench: Bench, name: str, split: str) -> None:
    buffer = io.StringIO(newline="")
    table = csv.DictWriter(buffer, COLUMNS, delimiter="\t", lineterminator="\n", restval="")
    table.writeheader()
    for number, scene, question in bench.asked([KINDS["choice"]]):
        text, options = options_of(question)
        table.writerow(
            {
                "index": number,
                "question": text,
                **dict(zip("ABCD", options, strict=True)),
                "answer": question.answer,
                "category": topic_of(question),
                "image": base64.b64encode(png(scene)).decode("ascii"),
                "source": "shapes",
                "l2-category": "perception",
                "split": split,
            }
        )
    atomic_write(bench.folder / name, buffer.getvalue())


def mmbench(bench: Bench) -> None:
    """Write a table with the images inside."""
    _mmbench(bench, "mmbench_dev_20230712.tsv", "dev")


def mmbench_cn(bench: Bench) -> None:
    """Write the same questions into another file; only the request for a letter, which the program adds, is Chinese."""
    _mmbench(bench, "mmbench_dev_cn_20231003.tsv", "dev")


def seed_bench(bench: Bench) -> None:
    """Write questions about images; the world has no videos."""
    types = {"colour": 1, "shape": 2, "counting": 3, "reading": 4}
    asked, answers = [], []
    for number, scene, question in bench.asked([KINDS["choice"]]):
        image = f"SEED-Bench-image/{number:06d}.png"
        bench.save_image(scene, image)
        text, options = options_of(question)
        key = str(number)
        asked.append({"question_id": key, "image": image, "text": question.prompt, "category": topic_of(question)})
        answers.append(
            {
                "question_id": key,
                "question": text,
                **{f"choice_{letter}": option for letter, option in zip("abcd", options, strict=True)},
                "answer": question.answer,
                "data_id": image.rpartition("/")[2],
                "data_type": "image",
                "question_type_id": types[topic_of(question)],
            }
        )
    bench.write_lines("llava-seed-bench.jsonl", asked)
    bench.write_json("SEED-Bench.json", {"questions": answers, "question_type": types})


def qbench(bench: Bench) -> None:
    """Write the same questions under the names of the English and of the Chinese file.

    Only the request to choose, which the program adds, is Chinese.
    """
    records = []
    for number, scene, question in bench.asked([KINDS["choice"]]):
        image = f"{number:06d}.png"
        bench.save_image(scene, f"images_llvisionqa/{image}")
        text, options = options_of(question)
        answer = options["ABCD".index(question.answer)]
        records.append({"img_path": image, "question": text, "candidates": options, "correct_ans": answer})
    for name in ("llvisionqa_dev.json", "质衡-问答-验证集.json"):
        bench.write_json(name, records)
