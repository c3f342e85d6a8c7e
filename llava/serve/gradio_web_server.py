"""Web demo: chats through a controller with the models that its workers serve.

    python -m llava.serve.gradio_web_server --controller http://localhost:21001

Plug-ins add controls and panels.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import secrets
import socket
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported: nothing is sent anywhere

import anyio.to_thread
import gradio as gr
from fastapi import FastAPI
from gradio import networking

from llava.constants import LOGDIR
from llava.errors import LlavaError, OptionError
from llava.flags import add_dataclass_flags, attributes_of, from_flags
from llava.plugins import hooks
from llava.program import run_program
from llava.serve.hosting.monitoring import add_monitoring_routes
from llava.serve.hosting.options import HostingOptions
from llava.serve.hosting.server import end_process, make_server, run_server
from llava.serve.hosting.sockets import bind
from llava.serve.middleware.allowed_hosts import allowed_names
from llava.serve.middleware.body_limits import MIB, BodyLimits
from llava.serve.middleware.draining import MONITORING
from llava.serve.middleware.server_log import set_up_logging
from llava.serve.middleware.stack import Middleware
from llava.serve.middleware.timed_bodies import TimedBodies
from llava.serve.protocol.http_client import checked_url
from llava.serve.web.client import WebClient
from llava.serve.web.components import Example, Page
from llava.serve.web.content_policy import ContentPolicy
from llava.serve.web.page import CSS, build
from llava.serve.web.page_requests import PAGE_OPEN, UPLOAD, PageRequests
from llava.serve.web.uploaded_image import LIMITS
from llava.serve.web.uploads import UploadQuota
from llava.serve.web.vote_log import VoteLog

log = logging.getLogger(__name__)

block_css = CSS
PORTS = range(7860, 7960)
SHARED_HOSTS = "*.gradio.live"
FONTS = ("system-ui", "sans-serif")  # none is fetched
UPLOAD_TIMEOUT_S = 120.0
CALL_BYTES = 4 * MIB  # of a call by the page: a question's text, and where its images are
MAX_WAITING = 256  # calls that wait for others; more are refused
EXAMPLES = (
    ("demo.png", "What colour is the triangle?"),
    ("demo-stars.png", "How many stars are there?"),
    ("demo-few.png", "Describe the picture."),
)
MAX_SESSIONS = 1000  # whose conversations are kept; beyond it the oldest one is forgotten


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line: upstream's flags."""
    parser = argparse.ArgumentParser(
        prog="python -m llava.serve.gradio_web_server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 for every network")
    parser.add_argument("--port", type=int, help="port to listen at; by default the first free one from 7860 to 7959")
    parser.add_argument("--controller-url", "--controller", default="http://localhost:21001", help="controller's URL")
    parser.add_argument("--concurrency-count", type=int, default=16, help="maximum number of answers at the same time")
    parser.add_argument(
        "--model-list-mode",
        choices=["once", "reload"],
        default="once",
        help="when the controller asks workers for their models: once, or whenever a page is opened",
    )
    parser.add_argument("--share", action="store_true", help="make a public URL through Gradio's servers")
    parser.add_argument(
        "--moderate",
        action="store_true",
        help="refuse questions that OpenAI's moderation flags; they are sent to it, with the key OPENAI_API_KEY",
    )
    parser.add_argument("--embed", action="store_true", help="show no title, for use inside another page")
    parser.add_argument("--log-dir", type=Path, default=Path(LOGDIR), help="folder for votes and their images")
    add_dataclass_flags(parser, HostingOptions)
    return parser.parse_args(arguments)


args: argparse.Namespace | None = None  # upstream's: a program sets it to choose the flags of ``build_demo``


def all_flags() -> argparse.Namespace:
    """Return the flags that ``args`` has, as upstream's parser or ours gives them, and the others' defaults."""
    given = attributes_of(args) if args else {}
    flags = argparse.Namespace(**{**vars(parse_arguments([])), **given})
    flags.log_dir = Path(flags.log_dir)
    return flags


def make_page(flags: argparse.Namespace, client: WebClient) -> Page:
    """Make what the page's events share. Raises OptionError for ``--moderate`` without a key."""
    if flags.moderate:
        from llava.utils import moderation_key  # imports torch: as the demo starts, not at the first question

        moderation_key()
    parts = [part for plugin_parts in hooks().demo_parts() for part in plugin_parts]
    reload_models = flags.model_list_mode == "reload"
    return Page(client, VoteLog(flags.log_dir), parts, reload_models, moderate=flags.moderate)


def build_demo(embed_mode: bool, cur_dir: str | None = None, concurrency_count: int = 10) -> gr.Blocks:
    """Build the page for a program that launches it itself, by the flags ``args`` or their defaults.

    embed_mode: without title. concurrency_count: maximum number of answers at the same time. ``cur_dir`` has no effect.
    """
    flags = all_flags()
    page = make_page(flags, WebClient(flags.controller_url))
    blocks: gr.Blocks = build(page, example_questions(), embed_mode)
    blocks.queue(default_concurrency_limit=concurrency_count, api_open=False)
    return blocks


def get_model_list() -> list[str]:
    """Ask the controller of ``args`` for the models it serves. Raises a ``LlavaError`` where it does not answer."""
    return WebClient(all_flags().controller_url).models()


def example_questions() -> list[Example]:
    """Return the examples to click on: those about the bundled images that are installed."""
    images = Path(__file__).parents[2] / "playground" / "smol"
    found = [(images / name, question) for name, question in EXAMPLES]
    return [(str(image), question) for image, question in found if image.is_file()]


def create_app(
    page: Page, middleware: Middleware, uploads: Path, embed: bool = False, concurrency: int = 16
) -> FastAPI:
    """Make the demo's ASGI application: the page, and the endpoints of monitoring.

    uploads: the folder that Gradio keeps what visitors send in.
    """
    blocks = build(page, example_questions(), embed)
    blocks.queue(default_concurrency_limit=concurrency, api_open=False, max_size=MAX_WAITING)
    blocks.state_session_capacity = MAX_SESSIONS
    app = FastAPI(title="LLaVA web demo", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(PageRequests)
    quota: dict[str, Any] = {"folder": uploads}
    middleware.install(app, (ContentPolicy, {}), (UploadQuota, quota), (TimedBodies, {"timeout_s": UPLOAD_TIMEOUT_S}))
    lifecycle = middleware.lifecycle

    async def state() -> dict[str, Any]:
        try:
            models = await anyio.to_thread.run_sync(page.client.models, False)
            reason = None if models else "no worker is registered with the controller"
        except LlavaError as error:
            models, reason = [], str(error)
        return {"reason": lifecycle.not_ready_reason or reason, "models": models}

    add_monitoring_routes(app, (middleware.metrics.registry,), lambda: lifecycle.failure, state)
    gr.mount_gradio_app(
        app,
        blocks,
        "/",
        max_file_size=LIMITS.max_bytes,
        theme=theme(),
        css=CSS,
        show_error=False,  # of unexpected errors; the log has them
        ssr_mode=False,
    )
    return app


def theme() -> gr.themes.Base:
    """Return the page's colours and fonts: Gradio's, with texts that stand out from what they are on."""
    default = gr.themes.Default(font=FONTS, font_mono=("ui-monospace", "monospace"))
    subdued = {"body_text_color_subdued": "*neutral_600", "body_text_color_subdued_dark": "*neutral_300"}
    infos = {"block_info_text_color": "*neutral_600", "block_info_text_color_dark": "*neutral_300"}
    return default.set(**subdued, **infos)


def demo_middleware(names: tuple[str, ...] | None = None) -> Middleware:
    """Return the middleware of the demo's application; ``names``: by which it may be addressed."""
    return Middleware(
        limits=BodyLimits(max_bytes=CALL_BYTES),
        names=names,
        streamed=(UPLOAD,),
        quiet=None,
        open_paths=(*MONITORING, PAGE_OPEN),
    )


def serve(args: argparse.Namespace) -> int:
    """Serve until a signal or a failure ends the process; return the exit code. Raises a ``LlavaError``.

    What visitors send is deleted at the end.
    """
    with tempfile.TemporaryDirectory(prefix="llava-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read as the page is built
        return _serve(args, Path(folder))


def _serve(args: argparse.Namespace, uploads: Path) -> int:
    page = make_page(args, WebClient(checked_url(args.controller_url, "--controller-url")))
    options = from_flags(HostingOptions, args)
    hosts = (*options.extra_hosts, *((SHARED_HOSTS,) if args.share else ()))
    middleware = demo_middleware(allowed_names(args.host, hosts))
    sockets = bind_first_free(args.host) if args.port is None else bind(args.host, args.port)
    app = create_app(page, middleware, uploads, args.embed, args.concurrency_count)
    server = make_server(app, middleware, options, args.host)
    if args.share:
        server.call_when_listening(lambda: share(args.host, sockets[0].getsockname()[1]))
    return run_server(server, sockets)


def bind_first_free(host: str) -> list[socket.socket]:
    """Return sockets at the first port of ``PORTS`` that is free. Raises OptionError where none is."""
    for port in PORTS[:-1]:
        with contextlib.suppress(OptionError):
            return bind(host, port)
    return bind(host, PORTS[-1])


def share(host: str, port: int) -> None:
    """Make a public URL through Gradio's servers, and log it; a failure leaves the demo without one."""
    try:
        url = networking.setup_tunnel(host, port, secrets.token_urlsafe(32), None, None)
    except Exception as error:  # noqa: BLE001 - Gradio raises many kinds, and the demo works without
        log.warning("no public URL could be made: %s", error)
    else:
        log.info("shared at %s", url)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return the exit code: 2 for a user error."""
    args = parse_arguments(arguments)
    set_up_logging()
    return run_program(lambda: serve(args))


if __name__ == "__main__":
    end_process(main())
