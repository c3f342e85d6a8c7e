"""A chat about pictures: the conversation so far, and one answer at a time, streamed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from transformers import TextIteratorStreamer

from llava.conversation import Conversation
from llava.generation import Answer, SamplingParams, answer, stop_text, with_image_tags
from llava.mm_utils import load_image


@dataclass
class ChatSession:
    """What a chat holds; plug-ins' commands get it.

    options: the program's flags by name, which plug-ins read for every answer. last_metadata: theirs on the last one.
    """

    model: Any
    tokenizer: Any
    image_processor: Any
    template: Conversation
    sampling: SamplingParams
    options: dict[str, Any] = field(default_factory=dict)
    images: list[Image.Image] = field(default_factory=list)
    conversation: Conversation = field(init=False)
    last_metadata: dict[str, Any] | None = None
    last_prompt: str = ""

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the conversation; the pictures stay."""
        self.conversation = self.template.copy()

    def open_images(self, paths: Sequence[str]) -> None:
        """Talk about these pictures from now on, in a new conversation. Raises ``ImageError``."""
        self.images = [load_image(path) for path in paths]
        self.reset()

    def ask(self, question: str, show: Callable[[str], None]) -> Answer:
        """Put a question; ``show`` gets the answer's text piece by piece. Ctrl-C ends the answer early and raises
        nothing: what was said until then stands in the conversation."""
        first = len(self.conversation.messages) == self.conversation.offset
        text = with_image_tags(self.model, question, len(self.images)) if first and self.images else question
        self.conversation.append_message(self.conversation.roles[0], text)
        self.conversation.append_message(self.conversation.roles[1], None)
        self.last_prompt = self.conversation.get_prompt()
        try:
            result = self._stream(self.last_prompt, show)
        except Exception:
            del self.conversation.messages[-2:]  # a question that failed was never asked
            raise
        self.conversation.messages[-1][1] = result.text
        self.last_metadata = result.facts
        return result

    def _stream(self, prompt: str, show: Callable[[str], None]) -> Answer:
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=False, skip_special_tokens=True)
        cancelled = threading.Event()
        outcome: list[Answer | BaseException] = []

        def work() -> None:
            try:
                outcome.append(
                    answer(
                        self.model,
                        self.tokenizer,
                        self.image_processor,
                        prompt,
                        self.images,
                        sampling=self.sampling,
                        options=self.options,
                        stop=stop_text(self.conversation),
                        streamer=streamer,
                        cancelled=cancelled,
                    )
                )
            except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
                outcome.append(error)
                streamer.end()

        worker = threading.Thread(target=work, name="answer")
        worker.start()
        try:
            for piece in streamer:
                show(piece)
        except KeyboardInterrupt:
            cancelled.set()
        worker.join()
        result = outcome[0]
        if isinstance(result, BaseException):
            raise result
        return result
