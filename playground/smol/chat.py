"""Makes the share of the training data that has no image: a language model's own answers to everyday requests.

Trained on what it would say anyway, it keeps its language while it learns to see.

    python -m playground.smol.chat --model DIR --out runs/smol/data
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from llava.files.atomic_write import atomic_write
from playground.smol.wordings import lines

FORMS = lines("""
    What is {topic}?
    Explain {topic} in one sentence.
    Explain {topic} to a child.
    Tell me something about {topic}.
    Give me three facts about {topic}.
    Why is {topic} important?
    Write a short poem about {topic}.
    Write one sentence about {topic}.
    What do people like about {topic}?
    How would you describe {topic}?
    Give me a tip about {topic}.
    What is the history of {topic}?
    Name one problem with {topic}.
    Write a title for a book about {topic}.
    What should a beginner know about {topic}?
    Where can I learn more about {topic}?
""")
TOPICS = lines("""
    water
    the sun
    the moon
    gravity
    bread
    coffee
    tea
    football
    chess
    music
    jazz
    painting
    photography
    cooking
    gardening
    running
    swimming
    cycling
    travel
    trains
    aeroplanes
    ships
    bridges
    cities
    villages
    mountains
    rivers
    oceans
    forests
    deserts
    rain
    snow
    wind
    the weather
    spring
    winter
    dogs
    cats
    birds
    horses
    bees
    whales
    trees
    flowers
    apples
    rice
    cheese
    chocolate
    breakfast
    sleep
    dreams
    friendship
    family
    school
    reading
    writing
    poetry
    mathematics
    physics
    chemistry
    biology
    history
    economics
    money
    work
    computers
    the internet
    programming
    Python
    robots
    electricity
    batteries
    light
    sound
    colours
    time
    clocks
    calendars
    maps
    languages
    democracy
    law
    medicine
    vaccines
    exercise
    meditation
    happiness
    courage
    patience
    honesty
""")
ALONE = lines("""
    Hello!
    Hi, how are you?
    Good morning!
    Thank you!
    What is your name?
    Who are you?
    What can you do?
    Can you help me?
    Tell me a joke.
    Tell me a short story.
    What is the capital of France?
    What is the capital of Japan?
    What is the capital of Italy?
    What is the capital of Egypt?
    What is the capital of Canada?
    How many days are in a week?
    How many months are in a year?
    What is 2 + 2?
    What is 10 minus 3?
    What is 7 times 8?
    Translate "good night" into French.
    Translate "thank you" into Spanish.
    What is the opposite of hot?
    What rhymes with cat?
    Spell the word "picture".
    Write a birthday wish.
    Write an email that asks for a day off.
    How do I boil an egg?
    How do I tie a knot?
    What should I cook tonight?
""")
TEST_TOPICS = 20  # of the topics, and as many of the requests that stand alone as fit, are for tests
TEST_REQUESTS = 200


def requests(test: bool) -> list[str]:
    """Return the requests of training, or the TEST_REQUESTS of the test, which speak of other topics."""
    topics = TOPICS[::4][:TEST_TOPICS]
    chosen = topics if test else [topic for topic in TOPICS if topic not in topics]
    texts = [form.format(topic=topic) for topic, form in itertools.product(chosen, FORMS)]
    random.Random(0).shuffle(texts)
    alone = [text for index, text in enumerate(ALONE) if (index % 3 == 0) == test]
    return [*alone, *texts][:TEST_REQUESTS] if test else [*alone, *texts]


@torch.inference_mode()
def answers(folder: Path, texts: list[str], max_new_tokens: int, batch: int = 32) -> list[tuple[str, bool]]:
    """Let a language model answer greedily in its own chat template; say of each answer whether it came to its end."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.generation_config.temperature = model.generation_config.top_p = None  # of sampling, which this is not
    found = []
    for start in tqdm(range(0, len(texts), batch), desc="answers"):
        messages = [[{"role": "user", "content": text}] for text in texts[start : start + batch]]
        prompts = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
        )
        made = model.generate(**prompts, max_new_tokens=max_new_tokens, do_sample=False)
        for row in made[:, prompts["input_ids"].shape[1] :]:
            ended = bool((row == tokenizer.eos_token_id).any())
            found.append((tokenizer.decode(row, skip_special_tokens=True).strip(), ended))
    return found


def full_sentences(text: str, ended: bool) -> str:
    """Return the answer, or of one that was cut off the sentences that are whole."""
    if ended:
        return text
    cut = max(text.rfind(mark) for mark in (". ", "! ", "? ", ".\n", "!\n", "?\n"))
    return text[: cut + 1].strip()


def records(texts: list[str], answered: list[tuple[str, bool]]) -> list[dict[str, Any]]:
    """Make records of LLaVA's conversation JSON without an image; requests without a whole sentence are left out."""
    pairs = [(text, full_sentences(*answer)) for text, answer in zip(texts, answered, strict=True)]
    return [
        {"id": f"chat/{n}", "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
        for n, (q, a) in enumerate(pairs)
        if a
    ]


def main() -> None:
    """Run the program with the command line's flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the language model that answers")
    parser.add_argument("--out", type=Path, required=True, help="folder for chat.json")
    parser.add_argument("--max-new-tokens", type=int, default=96, help="longest answer, in tokens")
    parser.add_argument("--limit", type=int, help="number of requests; by default all")
    args = parser.parse_args()
    texts = requests(test=False)[: args.limit]
    made = records(texts, answers(args.model, texts, args.max_new_tokens))
    atomic_write(args.out / "chat.json", json.dumps(made, indent=0))


if __name__ == "__main__":
    main()
