"""Settings of a sweep and of a frontier: how questions are answered, and where everything is written."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from ada.memory.narrow_limit import HELP as NARROW_LIMIT_HELP
from ada.memory.narrow_limit import narrow_limit_of
from llava.errors import OptionError
from llava.flags import flag


@dataclass(frozen=True)
class SweepSettings:
    """How the questions are answered.

    Raises ``OptionError`` for numbers out of range.
    """

    out: Path | None = flag(
        None, "folder for answers, tables, figures and the page; by default runs/sweep, or none with --compare"
    )
    timed_questions: int = flag(
        40, "number of test questions that are timed, one at a time (default: 40); 0 measures no times", metavar="N"
    )
    conv_mode: str | None = flag(None, "conversation template; by default the one that the model was trained with")
    batch_size: int = flag(64, "number of questions in a batch, where nothing is timed (default: 64)")
    max_new_tokens: int = flag(16, "maximum length of an answer in tokens (default: 16)")
    seed: int = flag(0, "seed of the random planner and of the choice of timed questions (default: 0)")
    device: str | None = flag(None, "device to run on: cpu, cuda or mps; by default the fastest one available")
    narrow_cache_gb: float | None = flag(None, NARROW_LIMIT_HELP, metavar="GB")
    ray: str | None = flag(
        None,
        "answer on the Ray cluster at this address, or auto for the one of this machine; times are measured here. Every"
        " machine of it has this project, and the same files under the same paths",
        metavar="ADDRESS",
    )

    def __post_init__(self) -> None:
        if self.ray is not None and importlib.util.find_spec("ray") is None:
            raise OptionError(f"--ray is {self.ray!r}, which needs the extra 'ray': pip install 'ada-llava[ray]'")
        if self.batch_size < 1 or self.max_new_tokens < 1:
            raise OptionError(
                f"--batch-size is {self.batch_size} and --max-new-tokens {self.max_new_tokens}; expected whole numbers "
                "from 1 up"
            )
        narrow_limit_of({"narrow_cache_gb": self.narrow_cache_gb})
        if self.timed_questions < 0:
            raise OptionError(f"--timed-questions is {self.timed_questions}; expected a whole number from 0 up")

    @property
    def folder(self) -> Path:
        """The folder that the sweep writes to."""
        return self.out or Path("runs/sweep")


@dataclass(frozen=True)
class FrontierSettings:
    """How the questions are answered.

    Raises ``OptionError`` for numbers out of range.
    """

    out: Path = flag(Path("runs/frontier"), "folder for answers, table and figure (default: runs/frontier)")
    limit: int | None = flag(None, "number of questions to ask, the file's first ones; by default all", metavar="N")
    planner: str | None = flag(None, "what turns units into a plan; by default the one that the model was trained with")
    token_selector: str | None = flag(
        None, "which image tokens stay, as salient or salient/learned; by default as the model was trained"
    )
    conv_mode: str | None = flag(None, "conversation template; by default the one that the model was trained with")
    batch_size: int = flag(64, "number of questions in a batch (default: 64)")
    max_new_tokens: int = flag(16, "maximum length of an answer in tokens (default: 16)")
    seed: int = flag(0, "seed of the random planner (default: 0)")
    device: str | None = flag(None, "device to run on: cpu, cuda or mps; by default the fastest one available")
    narrow_cache_gb: float | None = flag(None, NARROW_LIMIT_HELP, metavar="GB")

    def __post_init__(self) -> None:
        narrow_limit_of({"narrow_cache_gb": self.narrow_cache_gb})
        limits = {"limit": self.limit, "batch-size": self.batch_size, "max-new-tokens": self.max_new_tokens}
        for name, value in limits.items():
            if value is not None and value < 1:
                raise OptionError(f"--{name} is {value}; expected a whole number from 1 up")
