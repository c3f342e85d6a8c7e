"""One question about one or more pictures: ``python -m llava.eval.run_llava --image-file F --query Q``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from llava.generation import Answer, SamplingParams, answer, stop_text, with_image_tags
from llava.mm_utils import load_image
from llava.model.loaded_model import open_model
from llava.plugins import hooks
from llava.program import run_program
from llava.utils import progress_only_on_terminals


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """LLaVA's flags and the plug-ins'."""
    parser = argparse.ArgumentParser(prog="python -m llava.eval.run_llava", description=__doc__)
    parser.add_argument("--model-path", help="checkpoint folder or hub name; by default the bundled model")
    parser.add_argument("--model-base", help="language model's folder, where --model-path holds a projector alone")
    parser.add_argument("--image-file", required=True, help="pictures: paths or addresses, set apart by --sep")
    parser.add_argument("--query", required=True, help="the question")
    parser.add_argument("--conv-mode", help="conversation template; default: training's own, or by the model's name")
    parser.add_argument("--sep", default=",", help="what sets several pictures apart")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
    parser.add_argument("--top_p", type=float, help="nucleus sampling, where the temperature is above 0")
    parser.add_argument("--num_beams", type=int, default=1, help="beams of a beam search")
    parser.add_argument("--max_new_tokens", type=int, default=512, help="longest answer, in tokens")
    parser.add_argument("--device", help="cpu, cuda or mps; by default the best there is")
    parser.add_argument("--report", choices=["json"], help="print the facts behind the answer as the last line")
    hooks().add_arguments(parser=parser, program="run_llava")
    return parser.parse_args(arguments)


def eval_model(args: Any) -> Answer:
    """Answer ``args.query`` about ``args.image_file``, print the answer, and return it.

    ``args``: an object with the program's flags as attributes, as upstream's; missing ones have their defaults.
    """
    options = {name: getattr(args, name) for name in dir(args) if not name.startswith("_")}
    sampling = SamplingParams(
        options.get("temperature") or 0.0,
        options.get("top_p"),
        options.get("num_beams") or 1,
        options.get("max_new_tokens") or 512,
    )
    sampling.keywords()
    images = [load_image(name) for name in args.image_file.split(options.get("sep") or ",")]
    loaded = open_model(options)
    options.update(loaded.options)
    conversation = loaded.template.copy()
    conversation.append_message(conversation.roles[0], with_image_tags(loaded.model, args.query, len(images)))
    conversation.append_message(conversation.roles[1], None)
    result = answer(
        loaded.model,
        loaded.tokenizer,
        loaded.image_processor,
        conversation.get_prompt(),
        images,
        sampling=sampling,
        options=options,
        stop=stop_text(conversation),
    )
    print(result.text)
    if options.get("report") == "json":
        print(json.dumps({"answer": result.text, **result.timing, **result.facts}))
    return result


def main(arguments: list[str] | None = None) -> int:
    """The program; exit code 2 for what the user can mend."""
    args = parse_arguments(arguments)
    progress_only_on_terminals()

    def work() -> None:
        eval_model(args)

    return run_program(work)


if __name__ == "__main__":
    raise SystemExit(main())
