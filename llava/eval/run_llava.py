"""One question about one or more pictures: ``python -m llava.eval.run_llava --image-file F --query Q``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from llava.errors import OptionError
from llava.generation import Answer, SamplingParams, answer, conversation_for, stop_text, with_image_tags
from llava.mm_utils import get_model_name_from_path, load_image
from llava.model.builder import load_pretrained_model
from llava.plugins import hooks, merged
from llava.program import run_program
from llava.utils import pick_device, progress_only_on_terminals


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
    defaults = [path for path in hooks().default_model_path() if path]
    model_path = options.get("model_path") or (defaults[0] if defaults else None)
    if model_path is None:
        raise OptionError("--model-path is missing, and no bundled model is installed")
    sampling = SamplingParams(
        options.get("temperature") or 0.0,
        options.get("top_p"),
        options.get("num_beams") or 1,
        options.get("max_new_tokens") or 512,
    )
    sampling.keywords()
    images = [load_image(name) for name in args.image_file.split(options.get("sep") or ",")]
    name = get_model_name_from_path(model_path)
    tokenizer, model, image_processor, _ = load_pretrained_model(
        model_path, options.get("model_base"), name, device=pick_device(options.get("device"))
    )
    options.update(merged(hooks().prepare_model(model=model, options=options)))
    conversation = conversation_for(model, name, options.get("conv_mode"))
    conversation.append_message(conversation.roles[0], with_image_tags(model, args.query, len(images)))
    conversation.append_message(conversation.roles[1], None)
    result = answer(
        model,
        tokenizer,
        image_processor,
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
