"""Chat about images in a terminal.

    python -m llava.serve.cli

Without arguments it opens the bundled model and image. Type a question, or /help.
"""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from llava import mm_utils
from llava.errors import LlavaError, OptionError
from llava.flags import attributes_of
from llava.generation import Answer, SamplingParams
from llava.model.loaded_model import open_model
from llava.plugins import hooks, merged
from llava.program import run_program
from llava.serve.chat_session import ChatSession
from llava.utils import progress_only_on_terminals

BUNDLED_IMAGE = Path(__file__).resolve().parents[2] / "playground" / "smol" / "demo.png"
BUNDLED_QUESTION = "What colour is the triangle?\nAnswer the question using a single word or phrase."
COMMANDS = {
    "/image PATH": "ask about another image, in a new conversation",
    "/reset": "forget the conversation, keep the images",
    "/help": "list the commands",
    "/quit": "end the chat, as Ctrl-D does",
}


def parse_arguments(arguments: list[str] | None = None, given: argparse.Namespace | None = None) -> argparse.Namespace:
    """Parse LLaVA's flags and those of plug-ins; ``given`` values take the place of their defaults."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.serve.cli",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model-path", help="checkpoint folder or hub name; by default the bundled model")
    parser.add_argument("--model-base", help="folder of the language model, where --model-path holds only a projector")
    parser.add_argument("--image-file", nargs="+", action="extend", help="images to ask about: paths or http(s) URLs")
    parser.add_argument(
        "--exif-orientation", action="store_true", help="turn images upright as their EXIF orientation says"
    )
    parser.add_argument("--device", help="cpu, cuda or mps; by default the first that is available of cuda, mps, cpu")
    parser.add_argument(
        "--conv-mode",
        help="conversation template; by default the config's, or else one that fits the model's name",
    )
    parser.add_argument("--temperature", type=float, default=0.0, help="sampling temperature; 0 is greedy decoding")
    parser.add_argument(
        "--top-p",
        type=float,
        help="nucleus sampling: probability mass to sample from; needs --temperature above 0",
    )
    parser.add_argument("--max-new-tokens", type=int, default=512, help="maximum length of an answer, in tokens")
    parser.add_argument("--load-8bit", action="store_true", help="load the weights in 8 bits")
    parser.add_argument("--load-4bit", action="store_true", help="load the weights in 4 bits (extra: quant)")
    parser.add_argument("--debug", action="store_true", help="print the prompt and the metadata of each answer")
    hooks().add_arguments(parser=parser, program="cli")
    return parser.parse_args(arguments, given)


def open_session(args: argparse.Namespace) -> ChatSession:
    """Load the model and the images that the flags name. Raises a ``LlavaError`` that says what is wrong."""
    if args.image_file is None and args.model_path is None and BUNDLED_IMAGE.is_file():
        args.image_file = [str(BUNDLED_IMAGE)]
    sampling = SamplingParams(args.temperature, args.top_p, 1, args.max_new_tokens)
    sampling.keywords()  # refuse bad values before the model is read
    options = vars(args)
    loaded = open_model(options)
    options.update(loaded.options)
    session = ChatSession(loaded.model, loaded.tokenizer, loaded.image_processor, loaded.template, sampling, options)
    for note in session.open_images(args.image_file or []):
        print(f"[{note}]", flush=True)
    return session


def run_command(session: ChatSession, line: str) -> str:
    """Run ``/command argument`` and return what to print. Raises ``LlavaError``."""
    command, _, argument = line[1:].partition(" ")
    argument = unquoted(argument.strip())
    if command == "image":
        if not argument.strip():
            raise OptionError("/image needs a path: /image PATH")
        return "\n".join([f"image: {argument}", *(f"[{note}]" for note in session.open_images([argument]))])
    if command == "reset":
        session.reset()
        return "new conversation"
    if command == "help":
        listed = {**COMMANDS, **merged(hooks().chat_help())}
        width = max(map(len, listed))
        return "\n".join(f"{usage:<{width}} {meaning}" for usage, meaning in listed.items())
    reply: str | None = hooks().chat_command(command=command, argument=argument, session=session)
    if reply is None:
        raise OptionError(f"/{command} is not a command; /help lists them")
    return reply


def load_image(image_file: str) -> Image.Image:
    """Load an RGB image from a path or an http(s) address. Raises ``ImageError``."""
    return mm_utils.load_image(image_file)


def unquoted(argument: str) -> str:
    """Return a command's argument without the quotes, or the backslashes, that a shell would need around its spaces."""
    if argument[:1] not in ("'", '"') and "\\ " not in argument:
        return argument
    try:
        words = shlex.split(argument)
    except ValueError:  # a quote that is not closed: part of a file's name
        return argument
    return words[0] if len(words) == 1 else argument


def report_line(answer: Answer) -> str:
    """Return the line after an answer: the plug-ins' summary, then the measured times."""
    timing = answer.timing
    parts = [answer.metadata["summary"]] if "summary" in answer.metadata else []
    parts.append(f"first token {timing['time_to_first_token_ms']:.0f} ms")
    if timing["tokens_per_second"]:
        parts.append(f"{timing['tokens_per_second']:.1f} tokens/s")
    return f"[{' | '.join(parts)}]"


def shown(role: str) -> str:
    """Return a template's role without ChatML's mark."""
    return role.removeprefix("<|im_start|>").strip()


def ask(session: ChatSession, question: str, debug: bool = False) -> None:
    """Print the answer to a question as it comes, then its report line."""
    print(f"{shown(session.template.roles[1])}: ", end="", flush=True)
    started = False

    def show(piece: str) -> None:
        nonlocal started
        piece = piece if started else piece.lstrip()  # small tokenizers put a space before each word
        started = started or bool(piece)
        print(piece, end="", flush=True)

    answer = session.ask(question, show)
    print(f"\n{report_line(answer)}", flush=True)
    if debug:
        print({"prompt": session.last_prompt, **answer.metadata}, flush=True)


def chat(session: ChatSession, lines: Iterable[str], debug: bool) -> bool:
    """Answer every line; print errors and go on. Return whether there was none."""
    succeeded = True
    for line in lines:
        text = line.strip()
        if text in ("/quit", "/exit"):
            break
        if not text:
            continue
        try:
            if text.startswith("/"):
                print(run_command(session, text), flush=True)
            else:
                ask(session, text, debug)
        except LlavaError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            succeeded = False
    return succeeded


def typed_lines(role: str) -> Iterable[str]:
    """Yield typed lines until Ctrl-D, or Ctrl-C at the prompt; with history where readline is available."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - input() uses it from now on
    while True:
        try:
            yield input(f"{role}: ")
        except (EOFError, KeyboardInterrupt):
            print()
            return


def main(args: object = None) -> int:
    """Run the program; return the exit code: 2 for a user error.

    args: the command line, a list of texts; or, as upstream's scripts give them, an object with some flags as
    attributes; the others have their defaults.
    """
    if args is None or isinstance(args, (list, tuple)):
        parsed = parse_arguments(args if args is None else list(args))
    else:
        given = attributes_of(args)
        if isinstance(given.get("image_file"), str):
            given["image_file"] = [given["image_file"]]
        parsed = parse_arguments([], argparse.Namespace(**given))
    progress_only_on_terminals()
    return run_program(lambda: run_chat(parsed))


def run_chat(args: argparse.Namespace) -> int:
    """Chat in a terminal, or answer each line of a pipe; an empty pipe asks the bundled question about its image.

    Returns the exit code: 2 where a line could not be answered.
    """
    session = open_session(args)
    if sys.stdin.isatty():
        print("Ask about the image; /help lists the commands.")
        chat(session, typed_lines(shown(session.template.roles[0])), args.debug)
        return 0
    lines = [line for line in sys.stdin if line.strip()]
    if not lines and [Path(name).resolve() for name in args.image_file or []] == [BUNDLED_IMAGE]:
        print(f"{shown(session.template.roles[0])}: {BUNDLED_QUESTION.splitlines()[0]}")
        lines = [BUNDLED_QUESTION]
    return 0 if chat(session, lines, args.debug) else 2


if __name__ == "__main__":
    raise SystemExit(main())
