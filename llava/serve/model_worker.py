"""Model worker: serves one model, by default the bundled one.

    python -m llava.serve.model_worker

Requests wait in one bounded queue; a full queue answers 429. SIGTERM and Ctrl-C answer the requests that were accepted,
then end the worker.
"""

from __future__ import annotations

import argparse
import logging
from urllib.parse import urlsplit

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
from llava.serve.hosting.options import HostingOptions
from llava.serve.hosting.server import end_process, make_server, run_server
from llava.serve.hosting.sockets import bind, url_of
from llava.serve.middleware import registration_token
from llava.serve.middleware.allowed_hosts import allowed_names
from llava.serve.middleware.body_limits import BodyLimits
from llava.serve.middleware.server_log import set_up_logging
from llava.serve.protocol.http_client import checked_url
from llava.serve.routing.worker_address import checked_address
from llava.serve.worker.app import create_app, worker_middleware
from llava.serve.worker.drain import stopping_in_order
from llava.serve.worker.heartbeat import HeartBeat
from llava.serve.worker.metrics import metrics_prefix
from llava.serve.worker.request_limits import RequestLimits
from llava.serve.worker.service import EngineMaker, WorkerService
from llava.utils import progress_only_on_terminals

log = logging.getLogger(__name__)

ENGINES: dict[str, EngineMaker] = {"batch": BatchEngine, "threads": ThreadsEngine}
MINIMUMS = {"limit_model_concurrency": 1, "max_queue_length": 0, "stream_interval": 1}
SECONDS = ("heart_beat_interval",)


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse upstream's flags, this project's, and those of plug-ins."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.serve.model_worker",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="localhost", help="address to listen at; 0.0.0.0 for every network")
    parser.add_argument("--port", type=int, default=21002, help="port to listen at; 0 for a free one, which is logged")
    parser.add_argument(
        "--worker-address", help="URL under which others reach this worker; by default http://HOST:PORT"
    )
    parser.add_argument("--controller-address", default="http://localhost:21001", help="URL of the controller")
    parser.add_argument("--no-register", action="store_true", help="run without a controller")
    parser.add_argument(
        "--heart-beat-interval",
        type=float,
        default=WORKER_HEART_BEAT_INTERVAL,
        help="time between two heartbeats to the controller, in seconds",
    )
    registration_token.add_flag(parser)
    parser.add_argument(
        "--metrics-prefix",
        metavar="PREFIX",
        help="beginning of the names of metrics, such as vllm: for gateways that read vLLM's; by default llava:, or a "
        "plug-in's",
    )
    _add_model_flags(parser)
    _add_queue_flags(parser)
    add_dataclass_flags(parser, RequestLimits)
    add_dataclass_flags(parser, BodyLimits)
    add_dataclass_flags(parser, HostingOptions)
    hooks().add_arguments(parser=parser, program="model_worker")
    return parser.parse_args(arguments)


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--model-path", help="checkpoint folder or hub name; by default the bundled model")
    group.add_argument("--model-base", help="folder of the language model, where --model-path holds only a projector")
    group.add_argument("--model-name", help="name that clients ask for; by default the last part of the path")
    group.add_argument("--device", help="cpu, cuda or mps; by default the first that is available of cuda, mps, cpu")
    group.add_argument("--multi-modal", action="store_true", help="ignored; accepted as upstream's workers do")
    group.add_argument("--load-8bit", action="store_true", help="load the weights in 8 bits")
    group.add_argument("--load-4bit", action="store_true", help="load the weights in 4 bits (extra: quant)")
    group.add_argument("--use-flash-attn", action="store_true", help="use flash attention 2 (extra: flash)")


def _add_queue_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("queue")
    group.add_argument(
        "--limit-model-concurrency",
        type=int,
        default=8,
        help="maximum number of requests that the model answers at the same time (upstream: 5); others wait",
    )
    group.add_argument(
        "--engine",
        choices=ENGINES,
        default="batch",
        help="how requests are answered: as one running batch, or each in its own thread as upstream does",
    )
    group.add_argument(
        "--max-queue-length", type=int, default=32, help="maximum number of requests that wait; others get 429"
    )
    group.add_argument("--stream-interval", type=int, default=1, help="number of tokens in each chunk of an answer")


def check_arguments(args: argparse.Namespace) -> None:
    """Raise OptionError for numbers that are too small."""
    for name, minimum in MINIMUMS.items():
        if getattr(args, name) < minimum:
            raise OptionError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected {minimum} or more")
    for name in SECONDS:
        if not getattr(args, name) > 0:  # NaN is refused, too
            raise OptionError(f"--{name.replace('_', '-')} is {getattr(args, name):g}; expected seconds above 0")


def open_service(args: argparse.Namespace) -> WorkerService:
    """Load the model that the flags name. Raises a ``LlavaError`` that says what is wrong."""
    limits, prefix = from_flags(RequestLimits, args), metrics_prefix(vars(args))
    loaded = open_model(vars(args))
    registry = CollectorRegistry()
    policies = hooks().serving_policy(loaded=loaded, options=vars(args), registry=registry)
    return WorkerService(
        loaded,
        limits,
        Policies([policy for policy in policies if policy is not None]),
        args.limit_model_concurrency,
        args.max_queue_length,
        args.stream_interval,
        registry,
        ENGINES[args.engine],
        metrics_prefix=prefix,
    )


def worker_address(url: str) -> str:
    """Return the URL under which others reach the worker. Raises OptionError where no controller would take it."""
    try:
        return checked_address(url)
    except OptionError as error:
        raise OptionError(f"{error}; give --worker-address, or --no-register to run without a controller") from error


def serve(args: argparse.Namespace) -> int:
    """Serve until a signal or a failure ends the worker; return the exit code. Raises a ``LlavaError``."""
    check_arguments(args)
    token = registration_token.token_of(args)
    options, limits = from_flags(HostingOptions, args), from_flags(BodyLimits, args)
    sockets = bind(args.host, args.port)  # before the model is loaded, which takes long
    url = url_of(args.host, sockets[0].getsockname()[1])
    address = url if args.no_register else worker_address(args.worker_address or url)
    controller = checked_url(args.controller_address, "--controller-address")
    names = allowed_names(args.host, [*options.extra_hosts, urlsplit(address).hostname or args.host])
    service = open_service(args)
    heart_beat = None
    if not args.no_register:
        heart_beat = HeartBeat(controller, address, service.status, args.heart_beat_interval, token)
        service.on_change = heart_beat.nudge
    middleware = worker_middleware(service, limits, names)
    app = create_app(service, limits, stopping_in_order(service, heart_beat), middleware)
    log.info("serving model %s at %s", service.loaded.name, url)
    return run_server(make_server(app, middleware, options, args.host, limits, service.abandon), sockets)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return the exit code: 2 for a user error."""
    args = parse_arguments(arguments)
    set_up_logging()
    progress_only_on_terminals()
    return run_program(lambda: serve(args))


if __name__ == "__main__":
    end_process(main())
