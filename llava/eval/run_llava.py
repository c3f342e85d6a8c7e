"""Answers one question about one or more images.

python -m llava.eval.run_llava --image-file F --query Q
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

from PIL import Image

from llava import mm_utils
from llava.errors import OptionError
from llava.files.images import open_image
from llava.flags import attributes_of
from llava.generation import Answer, SamplingParams, answer, stop_text, with_image_tags
from llava.model.loaded_model import open_model
from llava.plugins import hooks
from llava.program import run_program
from llava.utils import progress_only_on_terminals

log = logging.getLogger(__name__)

SAMPLING = ("temperature", "top_p", "num_beams", "max_new_tokens")  # flags that are fields of SamplingParams


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse LLaVA's flags and those of the plug-ins."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.eval.run_llava", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-path", help="checkpoint folder or hub name (default: the bundled model)")
    parser.add_argument(
        "--model-base", help="folder of the language model, where --model-path holds only a projector or an adapter"
    )
    parser.add_argument("--image-file", required=True, help="paths or URLs of images, separated by --sep")
    parser.add_argument(
        "--exif-orientation", action="store_true", help="turn images upright as their EXIF orientation says"
    )
    parser.add_argument("--query", required=True, help="question about the images")
    parser.add_argument("--conv-mode", help="conversation template (default: the one that the model was trained with)")
    parser.add_argument("--sep", default=",", help="separator of several images in --image-file (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0, help="sampling temperature; 0 decodes greedily")
    parser.add_argument("--top_p", type=float, help="nucleus sampling: probability mass to draw from, in (0, 1]")
    parser.add_argument("--num_beams", type=int, default=1, help="number of beams; 1 is no beam search")
    parser.add_argument("--max_new_tokens", type=int, default=512, help="longest answer, in tokens")
    parser.add_argument("--device", help="cpu, cuda or mps (default: an accelerator where there is one)")
    parser.add_argument(
        "--report", choices=["json"], help="print answer, timing and metadata in this form as the last line"
    )
    hooks().add_arguments(parser=parser, program="run_llava")
    return parser.parse_args(arguments)


def image_parser(args: Any) -> list[str]:
    """Return the images that ``args.image_file`` names, separated by ``args.sep``, by default a comma.

    Raises ``OptionError`` where a name is empty.
    """
    names: list[str] = args.image_file.split(getattr(args, "sep", None) or ",")
    if not all(name.strip() for name in names):
        raise OptionError(f"--image-file is {args.image_file!r}; expected paths or URLs, separated by --sep")
    return names


def load_image(image_file: str | bytes) -> Image.Image:
    """Load an RGB image from a path, an http(s) address, or a file's bytes. Raises ``ImageError``."""
    return mm_utils.load_image(image_file)


def _opened(name: str, turn_by_exif: bool) -> Image.Image:
    """Open an image; say on stderr where it is turned, or a viewer would turn it."""
    opened = open_image(name, turn_by_exif=turn_by_exif)
    if note := opened.note(name):
        log.warning("%s", note)
    return opened.image


def load_images(image_files: Iterable[str | bytes]) -> list[Image.Image]:
    """Load images as ``load_image`` does."""
    return [load_image(image_file) for image_file in image_files]


def eval_model(args: Any) -> Answer:
    """Answer ``args.query`` about ``args.image_file``, print the answer, and return it.

    args: an object with the program's flags as attributes, as upstream; missing ones have their defaults.
    """
    options = attributes_of(args)
    sampling = SamplingParams(**{name: options[name] for name in SAMPLING if options.get(name) is not None})
    sampling.keywords()
    images = [_opened(name, bool(options.get("exif_orientation"))) for name in image_parser(args)]
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
        print(json.dumps({"answer": result.text, **result.timing, **result.metadata}))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code, 2 for a user error."""
    args = parse_arguments(arguments)
    progress_only_on_terminals()

    def work() -> None:
        eval_model(args)

    return run_program(work)


if __name__ == "__main__":
    raise SystemExit(main())
