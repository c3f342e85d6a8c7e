"""Every seam of the shell, on one page.

A plug-in is a module named by an entry point of the group ``llava``; it implements some of the functions
below under ``llava.hookspecs.hookimpl``. The shell works with none. ``ada.overlay`` is one plug-in.

The way of a program: ``add_arguments`` -> parse -> ``before_loading`` -> ``model_classes`` (while loading) ->
``prepare_model`` -> for each question ``generation_options`` -> ``model.generate`` -> ``describe_generation``, or in
the programs that answer files of questions ``describe_row``.
The server's worker makes a ``serving_policy`` once, and asks it before and after each request.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import pluggy

hookspec = pluggy.HookspecMarker("llava")
hookimpl = pluggy.HookimplMarker("llava")


@hookspec
def add_arguments(parser: argparse.ArgumentParser, program: str) -> None:
    """Add options to the argparse parser of ``program`` ("cli", "run_llava", ...)."""


@hookspec
def model_classes() -> Mapping[str, tuple[type, type]]:  # type: ignore[empty-body]
    """``model_type`` of a config.json -> (config class, model class), next to the shell's own."""


@hookspec(firstresult=True)
def check_convertible(fields: Mapping[str, Any]) -> str | None:
    """Return why transformers' own LLaVA classes cannot hold a checkpoint with these config.json fields.

    It is asked where ``model_type`` is not the shell's own; None where the plug-in does not know the checkpoint.
    """


@hookspec
def before_loading(options: Mapping[str, Any], path: str, device: str) -> None:
    """See what a program is about to load: the checkpoint at ``path``, a folder or hub name, onto ``device``.

    ``options``: the program's parsed arguments by name, and keywords of ``load_pretrained_model``. A plug-in may warn
    of what the load will take.
    """


@hookspec
def prepare_model(model: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:  # type: ignore[empty-body]
    """Adjust, or refuse with a ``LlavaError``, a model that has just been loaded for a program.

    ``options`` are the program's parsed arguments by name. Returns options to add to them, which
    ``generation_options`` is then given too.
    """


@hookspec
def generation_options(model: Any, options: Mapping[str, Any], tokenizer: Any) -> Mapping[str, Any]:  # type: ignore[empty-body]
    """Keyword arguments for ``model.generate``, from a program's options or a request's fields.

    ``tokenizer`` is the model's. Options a plug-in does not know are ignored. A bad value raises ``OptionError``.
    """


@hookspec
def describe_generation(model: Any, output: Any, timing: Mapping[str, float]) -> Mapping[str, Any]:  # type: ignore[empty-body]
    """JSON-ready metadata about a finished generation, for reports and replies.

    ``output`` is what ``generate(..., return_dict_in_generate=True)`` returned; ``timing`` has
    ``time_to_first_token_ms``, ``tokens_per_second`` and ``new_tokens``. The key ``"summary"``, where given,
    is one line for people.
    """


@hookspec
def describe_row(model: Any, output: Any, row: int) -> Mapping[str, Any]:  # type: ignore[empty-body]
    """JSON-ready metadata about one row of a finished batch, of one row too: for the records of an answer file.

    They state what the question costs when it is asked alone, whatever else was in the batch.
    """


@hookspec(firstresult=True)
def decoding_batch(model: Any, outputs: Sequence[Any], lengths: Sequence[int]) -> Any:
    """How the next tokens of several generations of one row each are decoded as one batch: a
    ``llava.kv_cache.DecodingBatch``, or None for the model as it is.

    ``outputs`` are what ``generate(..., return_dict_in_generate=True)`` returned for each; ``lengths`` how many columns
    each row's own cache has by now, its prompt's first. In the batch's cache they end at the right: column ``c`` of a
    row is column ``max(lengths) - length + c`` there, and each step adds one column after them. A batch is made anew
    whenever a row joins or leaves.
    """


@hookspec(firstresult=True)
def row_decoder(model: Any, slots: int) -> Any:
    """What reads and decodes up to ``slots`` rows of a server's batch, a ``llava.serve.engine.row_decoder.RowDecoder``;
    None for the model's own forward.
    """


@hookspec(firstresult=True)
def chat_command(command: str, argument: str, session: Any) -> str | None:
    """Answer a ``/command argument`` of the CLI's chat, or None where the command is not known here.

    ``session`` is a ``llava.serve.cli.ChatSession``: ``options`` (mutable dict), ``last_metadata``, ``model``,
    ``images``.
    """


@hookspec
def chat_help() -> Mapping[str, str]:  # type: ignore[empty-body]
    """Chat commands of the plug-in: usage -> one phrase."""


@hookspec
def default_model_path() -> str | None:
    """Folder of a model to open where a program is given none (the last registered plug-in wins)."""


@hookspec
def checkpoint_files() -> Sequence[str]:  # type: ignore[empty-body]
    """Names of a plug-in's files in checkpoints' folders on which answers depend, where they are there."""


@hookspec
def training_dataclasses() -> list[type]:  # type: ignore[empty-body]
    """Dataclasses whose fields become flags of ``llava/train/train.py``."""


@hookspec
def prepare_training_config(config: Any, arguments: Mapping[type, Any]) -> Sequence[str] | None:
    """Change the config of the model to train, before the model is built, in place.

    Setting ``config.model_type`` to another registered type trains that class from the same weights.
    ``arguments`` maps every parsed dataclass type to its instance. Returns how the names of tensors begin that the
    checkpoint may then lack, because the change adds them to a class that it has already; they start afresh.
    """


@hookspec
def learning_rates(arguments: Mapping[type, Any]) -> Mapping[str, float]:  # type: ignore[empty-body]
    """Separate learning rates: a module's name, as a part of its parameters' names -> rate."""


@hookspec
def training_policy(model: Any, arguments: Mapping[type, Any]) -> Any:
    """Return a plug-in's part in a training run: a ``llava.train.policy.TrainingPolicy``, or None.

    ``model``: as built, before the first step; ``arguments``: every parsed dataclass by its type.
    """


@hookspec
def request_fields() -> Mapping[str, tuple[Any, Any]]:  # type: ignore[empty-body]
    """Fields that a request to the server may have next to upstream's: name -> (type, pydantic ``FieldInfo``)."""


@hookspec
def fields_of_headers(headers: Mapping[str, str]) -> Mapping[str, Any]:  # type: ignore[empty-body]
    """Fields of ``request_fields`` that a request's HTTP headers (any case) ask for. A bad one raises ``OptionError``.

    Only the OpenAI-style API asks; its callers cannot always change a body.
    """


@hookspec
def serving_policy(loaded: Any, options: Mapping[str, Any], registry: Any) -> Any:
    """What a plug-in does for the requests of one worker: a ``llava.serve.engine.policy.ServingPolicy``, or None.

    ``loaded``: the ``llava.model.loaded_model.LoadedModel``; ``options``: the worker's flags by name; ``registry``: the
    prometheus ``CollectorRegistry`` to put metrics in. The policy checks fields before a request waits, grants options
    by load when its turn comes, and adds to the answer's last chunk.
    """


@hookspec(firstresult=True)
def metrics_prefix() -> str | None:
    """Return how the names of all metrics of a worker begin where ``--metrics-prefix`` does not say it.

    Without a plug-in that is ``llava:``.
    """


@hookspec
def demo_parts() -> Sequence[Any]:  # type: ignore[empty-body]
    """Controls and panels for the web demo: ``llava.serve.web.demo_part.DemoPart``s."""
