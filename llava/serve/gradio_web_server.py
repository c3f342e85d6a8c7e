"""Web demo: chats through a controller with the models that its workers serve.

    python -m llava.serve.gradio_web_server --controller http://localhost:21001

Plug-ins add controls and panels.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported: nothing is sent anywhere

import gradio as gr
from starlette.middleware import Middleware

from llava.constants import LOGDIR
from llava.plugins import hooks
from llava.program import run_program
from llava.serve.protocol.http_client import checked_server
from llava.serve.web.client import WebClient
from llava.serve.web.components import Example, Page
from llava.serve.web.content_policy import ContentPolicy
from llava.serve.web.conversation_state import LIMITS
from llava.serve.web.page import CSS, build
from llava.serve.web.uploads import UploadQuota
from llava.serve.web.vote_log import VoteLog

FONTS = ("system-ui", "sans-serif")  # none is fetched


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
    parser.add_argument("--embed", action="store_true", help="show no title, for use inside another page")
    parser.add_argument("--log-dir", type=Path, default=Path(LOGDIR), help="folder for votes and their images")
    return parser.parse_args(arguments)


def example_questions() -> list[Example]:
    """Return the examples to click on: those about the bundled image, where it is installed."""
    image = Path(__file__).parents[2] / "playground" / "shapes" / "demo.png"
    questions = (
        "What word is written in the picture?",
        "Describe the picture.",
        "Is the blue star left of the green triangle?",
    )
    return [(str(image), question) for question in questions] if image.is_file() else []


def serve(args: argparse.Namespace) -> None:
    """Serve until a signal ends the process. What visitors send is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="llava-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # read as the page is built
        _serve(args, Path(folder))


def _serve(args: argparse.Namespace, uploads: Path) -> None:
    parts = [part for plugin_parts in hooks().demo_parts() for part in plugin_parts]
    reload_models = args.model_list_mode == "reload"
    page = Page(
        WebClient(checked_server(args.controller_url, "--controller-url")), VoteLog(args.log_dir), parts, reload_models
    )
    blocks = build(page, example_questions(), args.embed)
    blocks.queue(default_concurrency_limit=args.concurrency_count, api_open=False)
    launch(blocks, uploads, args.host, args.port, args.share)
    for url in (blocks.local_url, blocks.share_url):
        if url is not None:
            print(f"running on {url.rstrip('/')}", flush=True)
    blocks.block_thread()


def launch(blocks: gr.Blocks, uploads: Path, host: str, port: int | None = None, share: bool = False) -> None:
    """Serve a page in a thread. uploads: the folder of what visitors send; port: None is the first free one."""
    blocks.launch(
        server_name=host,
        server_port=port,
        share=share,
        max_file_size=LIMITS.max_bytes,
        theme=gr.themes.Default(font=FONTS, font_mono=("ui-monospace", "monospace")),
        css=CSS,
        show_error=False,  # of unexpected errors; the log has them
        ssr_mode=False,
        quiet=True,
        prevent_thread_lock=True,
        app_kwargs={"middleware": [Middleware(ContentPolicy), Middleware(UploadQuota, folder=uploads)]},
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the program; return the exit code: 2 for a user error."""
    args = parse_arguments(arguments)
    return run_program(lambda: serve(args))


if __name__ == "__main__":
    raise SystemExit(main())
