"""A chat about images: the conversation so far, and one answer at a time, streamed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from transformers import TextIteratorStreamer

from llava.conversation import Conversation
from llava.files.images import open_image
from llava.generation import Answer, SamplingParams, answer, stop_text, with_image_tags
from llava.protocols import ImageProcessor, LlavaModel, Tokenizer


@dataclass
class ChatSession:
    """The state of a chat, which plug-ins' commands get.

    options: the program's flags by name, which plug-ins read for every answer. last_metadata: the plug-ins' metadata of
    the last answer; None before the first.
    """

    model: LlavaModel
    tokenizer: Tokenizer
    image_processor: ImageProcessor | None
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
        """Forget the conversation; the images stay."""
        self.conversation = self.template.copy()

    def open_images(self, paths: Sequence[str]) -> list[str]:
        """Load the images to ask about, and begin a new conversation. Raises ``ImageError``.

        Returns a note for each image that its EXIF orientation would turn, or that the option ``exif_orientation`` has
        turned.
        """
        turn = bool(self.options.get("exif_orientation"))
        opened = [open_image(path, turn_by_exif=turn) for path in paths]
        self.images = [image.image for image in opened]
        self.reset()
        notes = (image.note(path) for image, path in zip(opened, paths, strict=True))
        return [note for note in notes if note is not None]

    def ask(self, question: str, show: Callable[[str], None]) -> Answer:
        """Answer a question; call ``show`` with the answer's text piece by piece.

        Ctrl-C ends the answer early and raises nothing: the text until then stays in the conversation. A question that
        fails leaves the conversation as it was.
        """
        first = len(self.conversation.messages) == self.conversation.offset
        text = with_image_tags(self.model, question, len(self.images)) if first and self.images else question
        self.conversation.append_message(self.conversation.roles[0], text)
        self.conversation.append_message(self.conversation.roles[1], None)
        self.last_prompt = self.conversation.get_prompt()
        try:
            result = self._stream(self.last_prompt, show)
        except Exception:
            del self.conversation.messages[-2:]
            raise
        self.conversation.messages[-1][1] = result.text
        self.last_metadata = result.metadata
        return result

    def _stream(self, prompt: str, show: Callable[[str], None]) -> Answer:
        """Generate in a thread, and show the text in this one."""
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=False, skip_special_tokens=True)
        cancelled = threading.Event()
        outcome: list[Answer | BaseException] = []

        def work() -> None:
            try:
                outcome.append(self._answer(prompt, streamer, cancelled))
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

    def _answer(self, prompt: str, streamer: TextIteratorStreamer, cancelled: threading.Event) -> Answer:
        return answer(
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
