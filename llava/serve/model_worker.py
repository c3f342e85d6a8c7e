"""Serves one model: ``python -m llava.serve.model_worker``. Without arguments it serves the bundled model.

Requests wait in one bounded queue; a full queue answers 429. SIGTERM and Ctrl-C answer what was taken in, then leave.
"""

from __future__ import annotations

import argparse
import logging

import uvicorn
from prometheus_client import CollectorRegistry

from llava.constants import WORKER_HEART_BEAT_INTERVAL
from llava.errors import OptionError
from llava.flags import add_dataclass_flags, from_flags
from llava.model.loaded_model import open_model
from llava.plugins import hooks
from llava.program import run_program
from llava.serve.engine.batch_engine import BatchEngine
from llava.serve.engine.policy import Policies
from llava.serve.engine.threads_engine import ThreadsEngine
from llava.serve.middleware import registration_token
from llava.serve.middleware.body_limits import BodyLimits
from llava.serve.middleware.server_log import set_up_logging
from llava.serve.worker import request_limits
from llava.serve.worker.app import create_app
from llava.serve.worker.drain import GRACE_S, Drain, DrainingServer
from llava.serve.worker.heartbeat import HeartBeat
from llava.serve.worker.service import EngineMaker, WorkerService
from llava.utils import progress_only_on_terminals

log = logging.getLogger(__name__)

ENGINES: dict[str, EngineMaker] = {"batch": BatchEngine, "threads": ThreadsEngine}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Upstream's flags, ours, and the plug-ins'."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.serve.model_worker",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="localhost", help="address to listen at; 0.0.0.0 for every network")
    parser.add_argument("--port", type=int, default=21002, help="port to listen at")
    parser.add_argument("--worker-address", help="where others reach this worker; by default http://HOST:PORT")
    parser.add_argument("--controller-address", default="http://localhost:21001", help="the controller")
    parser.add_argument("--no-register", action="store_true", help="work without a controller")
    parser.add_argument(
        "--heart-beat-interval", type=float, default=WORKER_HEART_BEAT_INTERVAL, help="seconds between heart beats"
    )
    registration_token.add_flag(parser)
    _add_model_flags(parser)
    _add_queue_flags(parser)
    request_limits.add_flags(parser)
    add_dataclass_flags(parser, BodyLimits)
    hooks().add_arguments(parser=parser, program="model_worker")
    return parser.parse_args(arguments)


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model-path", help="checkpoint folder or hub name; by default the bundled model")
    group.add_argument("--model-base", help="language model's folder, where --model-path holds a projector alone")
    group.add_argument("--model-name", help="what clients ask for; by default the path's last part")
    group.add_argument("--device", help="cpu, cuda or mps; by default the best there is")
    group.add_argument("--multi-modal", action="store_true", help="as upstream: not needed, the checkpoint says it")
    group.add_argument("--load-8bit", action="store_true", help="8-bit weights (extra: quant)")
    group.add_argument("--load-4bit", action="store_true", help="4-bit weights (extra: quant)")
    group.add_argument("--use-flash-attn", action="store_true", help="flash attention 2 (extra: flash)")


def _add_queue_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("queue")
    group.add_argument(
        "--limit-model-concurrency",
        type=int,
        default=8,
        help="requests that the model answers at the same time; more wait (upstream: 5)",
    )
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default="batch",
        help="how: as one running batch, or each in a thread of its own as upstream does",
    )
    group.add_argument("--max-queue-length", type=int, default=32, help="requests that may wait; more get 429")
    group.add_argument("--stream-interval", type=int, default=1, help="tokens in each chunk of an answer")
    group.add_argument(
        "--drain-timeout", type=float, default=60.0, help="seconds that SIGTERM leaves to accepted requests"
    )


def check_arguments(args: argparse.Namespace) -> None:
    """Raise OptionError for numbers that no worker can work with."""
    least = {
        "limit_model_concurrency": 1,
        "max_queue_length": 0,
        "stream_interval": 1,
        "max_output_tokens": 1,
        "max_images": 0,
    }
    for name, value in least.items():
        if getattr(args, name) < value:
            raise OptionError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected {value} or more")
    for name in ("heart_beat_interval", "drain_timeout", "queue_timeout", "generation_timeout"):
        if not getattr(args, name) > 0:
            raise OptionError(f"--{name.replace('_', '-')} is {getattr(args, name):g}; expected seconds above 0")


def open_service(args: argparse.Namespace) -> WorkerService:
    """Load the model as the flags say. Raises a ``LlavaError`` that says what is wrong."""
    loaded = open_model(vars(args))
    registry = CollectorRegistry()
    parts = hooks().serving_policy(loaded=loaded, options=vars(args), registry=registry)
    return WorkerService(
        loaded,
        request_limits.from_flags(args),
        Policies([part for part in parts if part is not None]),
        args.limit_model_concurrency,
        args.max_queue_length,
        args.stream_interval,
        registry,
        ENGINES[args.engine],
    )


def open_server(args: argparse.Namespace) -> DrainingServer:
    """The worker, ready to run."""
    check_arguments(args)
    token = registration_token.token_of(args)
    service = open_service(args)
    heart_beat = None
    if not args.no_register:
        address = args.worker_address or f"http://{args.host}:{args.port}"
        heart_beat = HeartBeat(args.controller_address, address, service.status, args.heart_beat_interval, token)
        service.on_change = heart_beat.nudge
    drain = Drain(service, heart_beat, args.drain_timeout)
    config = uvicorn.Config(
        create_app(service, from_flags(BodyLimits, args), drain),
        host=args.host,
        port=args.port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(args.drain_timeout) + GRACE_S,
    )
    log.info("model %s at http://%s:%d", service.loaded.name, args.host, args.port)
    return DrainingServer(config, drain.begin)


def main(arguments: list[str] | None = None) -> int:
    """The program; the exit code: 2 for what the user can mend."""
    args = parse_arguments(arguments)
    set_up_logging()
    progress_only_on_terminals()
    return run_program(lambda: open_server(args).run_to_the_end())


if __name__ == "__main__":
    raise SystemExit(main())
