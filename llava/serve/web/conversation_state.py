"""One browser's conversation: its turns and images, its answers so far, and the request that asks for the next one."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import conv_templates, stop_text, template_of_name
from llava.errors import ImageError, OptionError
from llava.serve.turns import Turn as PromptTurn
from llava.serve.turns import joined_turns, render_turns, without_image_tags
from llava.serve.web.uploaded_image import UploadedImage

MAX_IMAGES = 8  # of a conversation, as workers take by default
MAX_ANSWERED = 100  # answers of which the figures are kept
STOPPED = "You stopped this answer."
LOADED_ANEW = "The page was loaded anew before the answer was complete."


@dataclass
class Turn:
    """A question with its images, and what became of it.

    answer: the text so far, None while there is none. failure: why there is no answer, or no complete one. reply: the
    fields of a complete answer's last chunk. vote: what the visitor thinks of it.
    """

    question: str
    images: tuple[UploadedImage, ...] = ()
    answer: str | None = None
    failure: str | None = None
    reply: Mapping[str, Any] = field(default_factory=dict)
    vote: str | None = None

    def again(self) -> Turn:
        """Return the same question, not answered yet."""
        return Turn(self.question, self.images)


@dataclass(frozen=True)
class Answered:
    """A complete answer, and the fields of the last chunk of its stream: the figures."""

    question: str
    answer: str
    reply: Mapping[str, Any]


@dataclass
class LiveAnswer:
    """What is known of an answer that is being given: the chunks' fields, the newest of each.

    asked: when, in ``time.perf_counter`` seconds.
    """

    asked: float = field(default_factory=time.perf_counter)
    notes: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class WebChat:
    """A conversation with ``model``, whose prompts follow the template ``mode``, as its worker names it.

    "" where the model names none, None where the worker is upstream's: then it is the template of the model's name.
    id: by which the page finds it again after it was loaded anew. answered: all complete answers, also those that were
    given again. live: of the answer that is being given. hint: what the visitor should know about what was just tried.
    worker: what the model's worker has said at ``/ready``.
    """

    model: str = ""
    mode: str | None = None
    turns: list[Turn] = field(default_factory=list)
    answers: int = 0  # counts those begun or stopped: an answer goes on while no other one has begun
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    answered: list[Answered] = field(default_factory=list)
    live: LiveAnswer | None = None
    hint: str = ""
    worker: Mapping[str, Any] = field(default_factory=dict)

    def ask(self, question: str, files: Sequence[str]) -> None:
        """Append a question, in place of one that got no answer. Raises ``LlavaError``; then nothing has changed."""
        if not question.strip() and not files:
            raise ImageError("there is nothing to ask: write a question, or add an image")
        if DEFAULT_IMAGE_TOKEN in question:
            raise OptionError(
                f"the question holds {DEFAULT_IMAGE_TOKEN}, which stands for an image in a prompt; leave it out"
            )
        kept = self.turns[:-1] if self.turns and not self.turns[-1].answer else self.turns
        held = sum(len(turn.images) for turn in kept)
        if held + len(files) > MAX_IMAGES:
            raise ImageError(
                f"{len(files)} images, with {held} asked about before; a conversation may have {MAX_IMAGES}. Choose "
                "Clear for a new one"
            )
        images = tuple(UploadedImage.read(path, number) for number, path in enumerate(files, start=1))
        self.stop()
        self.turns[:] = [*kept, Turn(question.strip(), images)]

    @property
    def is_pending(self) -> bool:
        """Whether the last question waits for its answer to be begun."""
        last = self.turns[-1] if self.turns else None
        return last is not None and self.live is None and last.answer is None and last.failure is None

    @property
    def images(self) -> list[bytes]:
        """The conversation's images in their order, as PNG files."""
        return [image.png for turn in self.turns for image in turn.images]

    def begin(self) -> int:
        """Begin the last question's answer; return its number, which is ``answers`` while it goes on."""
        self.answers += 1
        self.live = LiveAnswer()
        return self.answers

    def take(self, chunk: Mapping[str, Any], prompt: str) -> None:
        """Take a chunk of the answer, whose text begins with ``prompt``; the last one has a ``finish_reason``."""
        turn, text = self.turns[-1], str(chunk["text"])[len(prompt) :].strip()
        fields = {name: value for name, value in chunk.items() if name not in ("text", "error_code")}
        turn.answer = text or None
        if "finish_reason" in chunk:
            turn.answer, turn.reply, self.live = text, fields, None
            self.answered = [*self.answered, Answered(turn.question, text, fields)][-MAX_ANSWERED:]
        elif self.live is not None:
            self.live.notes = {**self.live.notes, **fields}

    def fail(self, why: str) -> None:
        """End the answer that is being given by a failure."""
        self.turns[-1].failure, self.live = why, None

    def stop(self) -> None:
        """Let no more of an answer come; what has come stays."""
        unanswered = self.live is not None or self.is_pending
        self.answers += 1
        self.live = None
        if unanswered:
            self.turns[-1].failure = STOPPED

    def take_back(self) -> Turn:
        """Remove the last question, which was not answered, and return it."""
        return self.turns.pop()

    def ask_again(self) -> None:
        """Remove the last answer, so that it can be given again."""
        self.stop()
        if self.turns:
            self.turns[-1] = self.turns[-1].again()

    def clear(self) -> None:
        """Forget all that was asked and answered."""
        self.stop()
        self.turns.clear()
        self.answered, self.hint = [], ""

    def become(self, other: WebChat) -> None:
        """Go on as another conversation, under the same id."""
        self.clear()
        self.model, self.mode, self.worker = other.model, other.mode, other.worker
        self.turns[:] = other.turns

    def copy(self) -> WebChat:
        """Return the conversation as it is now, under another id, for a page that is opened with it."""
        turns = [replace(turn) for turn in self.turns]
        if turns and turns[-1].failure is None and not turns[-1].reply:
            turns[-1].failure = LOADED_ANEW
        return WebChat(self.model, self.mode, turns, answered=list(self.answered), worker=self.worker)

    def request(self, sampling: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body of a request for the last turn's answer.

        sampling: temperature, top_p, max_new_tokens. fields: the plug-ins' fields by name.
        """
        known = conv_templates.get(self.mode or "")
        template = template_of_name(self.model) if known is None else known
        said: list[PromptTurn] = []
        for turn in self.turns:
            said.append(PromptTurn(False, f"{DEFAULT_IMAGE_TOKEN}\n" * len(turn.images) + turn.question))
            said.append(PromptTurn(True, without_image_tags(turn.answer or "")))
        images = [base64.b64encode(png).decode() for png in self.images]
        return {
            "model": self.model,
            "prompt": render_turns(template, joined_turns(said)),
            "stop": stop_text(template),
            **({} if self.mode is None else {"conv_mode": self.mode}),
            "images": images,
            "progress": True,
            **sampling,
            **fields,
        }

    def record(self) -> dict[str, Any]:
        """Return the conversation for a log, with its images by their digests."""
        return {
            "model": self.model,
            "conv_mode": self.mode,
            "turns": [
                {"question": t.question, "images": [image.digest for image in t.images], "answer": t.answer}
                for t in self.turns
            ],
        }
