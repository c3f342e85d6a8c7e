"""Flags of the programs that answer a question file (``model_vqa*``), read once into ``RunSettings``."""

from __future__ import annotations

import argparse
import hashlib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llava.errors import OptionError
from llava.flags import add_dataclass_flags, attributes_of, flag
from llava.generation import SamplingParams
from llava.model.checkpoint.adapter_chain import folders_of, weight_files
from llava.model.checkpoint.folder import local_folder
from llava.plugins import hooks

MAX_SEED = 1 << 62  # torch takes 64 bits, to which the question's index is added
SAMPLE_BYTES = 1 << 16  # of each end of a weight file: enough to distinguish two training runs

_PATHS = ("image_folder", "question_file", "answers_file")

# Options that say where files are and how the work is divided; all others decide what is answered, and are recorded.
UNRECORDED_OPTIONS = frozenset(
    "model_path model_base image_folder question_file answers_file num_chunks chunk_idx batch_size device".split()
)


@dataclass(frozen=True)
class RunSettings:
    """One run over a question file: the model, the files, this process's part of the questions, and the sampling."""

    model_path: str | None = flag(None, "checkpoint folder or hub name (default: the bundled model)")
    model_base: str | None = flag(
        None, "folder of the language model, where --model-path holds only a projector or an adapter"
    )
    image_folder: Path = flag(Path(), "folder that the images' names are relative to (default: this folder)")
    question_file: Path = flag(None, "file of questions", required=True)
    answers_file: Path = flag(None, "file to write the answers to, one JSON object a line", required=True)
    exif_orientation: bool = flag(False, "turn images upright as their EXIF orientation says")
    conv_mode: str | None = flag(None, "conversation template (default: the one that the model was trained with)")
    num_chunks: int = flag(1, "number of processes that share the questions")
    chunk_idx: int = flag(0, "which of the --num-chunks parts this process answers, from 0")
    temperature: float = flag(0.2, "sampling temperature; 0 decodes greedily")
    top_p: float | None = flag(None, "nucleus sampling: probability mass to draw from, in (0, 1]", name="--top_p")
    num_beams: int = flag(1, "number of beams; 1 is no beam search", name="--num_beams")
    max_new_tokens: int = flag(1024, "longest answer, in tokens", name="--max_new_tokens")
    batch_size: int = flag(1, "questions answered at a time")
    seed: int = flag(0, "seed of the sampling, and of plug-ins that draw at random")
    device: str | None = flag(None, "cpu, cuda or mps (default: an accelerator where there is one)")

    @property
    def sampling(self) -> SamplingParams:
        """How tokens are chosen."""
        return SamplingParams(self.temperature, self.top_p, self.num_beams, self.max_new_tokens)

    def check(self) -> None:
        """Raise ``OptionError`` for flags that are out of range."""
        if not 0 <= self.chunk_idx < self.num_chunks or self.batch_size < 1:
            raise OptionError(
                f"--chunk-idx is {self.chunk_idx}, --num-chunks {self.num_chunks} and --batch-size {self.batch_size}; "
                "expected chunks counted from 0, and batches of 1 or more"
            )
        if abs(self.seed) >= MAX_SEED:
            raise OptionError(f"--seed is {self.seed}; expected a number below {MAX_SEED:,}")
        self.sampling.keywords()


def make_parser(
    program: str,
    description: str | None,
    max_new_tokens: int = 1024,
    also: Mapping[str, str] = types.MappingProxyType({}),
    **defaults: Any,
) -> argparse.ArgumentParser:
    """Make the parser of ``llava.eval.<program>``: the flags of ``RunSettings`` and those of the plug-ins.

    max_new_tokens, defaults: this program's defaults. also: field of ``RunSettings`` -> a second name of its flag.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m llava.eval.{program}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_dataclass_flags(parser, RunSettings, "questions and answers", also)
    parser.set_defaults(max_new_tokens=max_new_tokens, **defaults)
    hooks().add_arguments(parser=parser, program=program)
    return parser


def with_defaults(parser: argparse.ArgumentParser, args: object) -> argparse.Namespace:
    """Return all flags of a program whose ``parser`` this is, for an object with some of them as attributes.

    args: what the parser gave, or as with upstream what a script made, with texts for paths.
    """
    given = attributes_of(args)
    if "questions_file" in given:  # upstream's, in Q-Bench's program
        given.setdefault("question_file", given.pop("questions_file"))
    if missing := [name for name in ("question_file", "answers_file") if given.get(name) is None]:
        raise OptionError(f"the arguments have no {missing[0]}; expected an object with the flags as attributes")
    files = [f"--question-file={given['question_file']}", f"--answers-file={given['answers_file']}"]
    paths = {name: Path(given[name]).expanduser() for name in _PATHS if given.get(name) is not None}
    return argparse.Namespace(**{**vars(parser.parse_args(files)), **given, **paths})


def recorded_settings(options: Mapping[str, Any], model_path: str) -> dict[str, Any]:
    """Return what the answers depend on apart from the questions; options that are None, False or 0 are left out.

    options: every parsed flag by name, those of plug-ins included.
    """
    chosen = {
        name: value if isinstance(value, (str, int, float, list)) else str(value)  # as they are stored, in JSON
        for name, value in options.items()
        if name not in UNRECORDED_OPTIONS and value not in (None, False)
    }
    return {"checkpoint": checkpoint_fingerprint(local_folder(model_path), options.get("model_base")), **chosen}


def checkpoint_fingerprint(folder: Path, model_base: str | None = None) -> str:
    """Hash a checkpoint's config and weights, and plug-ins' files in its folder, into 16 hex digits.

    So are those of what it was trained on, where it is an adapter or a projector alone. Of each file only the size and
    both ends are read, as reading all of it would take minutes.
    """
    digest = hashlib.sha256()
    of_plugins = [folder / name for names in hooks().checkpoint_files() for name in names]
    of_model = [path for one in folders_of(folder, model_base) for path in (one / "config.json", *weight_files(one))]
    for path in (*of_model, *sorted(of_plugins)):
        if path.is_file():
            with path.open("rb") as stream:
                size = path.stat().st_size
                digest.update(f"{path.name} {size} ".encode() + stream.read(SAMPLE_BYTES))
                stream.seek(max(0, size - SAMPLE_BYTES))
                digest.update(stream.read(SAMPLE_BYTES))
    return digest.hexdigest()[:16]
