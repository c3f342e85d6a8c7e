"""Keeps what was computed of prompts and images, within one limit of bytes: what was used last stays.

A model is asked about the same image again, in a further turn of a chat or under another budget. Of a prompt its first
layers' keys and values, which no plan changes, and the states that enter layer P are kept; those of later layers count
under the same plan alone. Of an image its features are kept, by a hash of its pixels.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Hashable

import torch

from ada.reuse.prompt_states import KnownPrompt, PromptStates


class ReuseCache:
    """Thread-safe. Of one model: its prompts and images. max_bytes: of all tensors that it keeps."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[Hashable, tuple[int, PromptStates | torch.Tensor]] = OrderedDict()
        self._bytes = 0
        self._number = 0

    @property
    def num_bytes(self) -> int:
        """The bytes of all that is kept."""
        return self._bytes

    def clear(self) -> None:
        """Forget everything, as after the model's weights have changed."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def find_prompt(self, embeds: torch.Tensor, positions: torch.Tensor) -> KnownPrompt | None:
        """Return what is known of a prompt (T, D) at ``positions`` (T,): of its longest beginning that was read before.

        None where nothing of it is.
        """
        with self._lock:
            kept = reversed(self._kept.items())  # of as long ones the last that was used
            prompts = [(key, value) for key, (_, value) in kept if isinstance(value, PromptStates)]
        lengths = [(states.common_length(embeds, positions), key, states) for key, states in prompts]
        length, key, states = max(lengths, key=lambda one: one[0], default=(0, None, None))
        if not length or states is None:
            return None
        self._touch(key)
        return KnownPrompt(states, length)

    def add_prompt(self, states: PromptStates) -> None:
        """Keep a prompt's states, in place of those of its beginnings; these stay where it is too large."""
        if states.num_bytes > self.max_bytes:
            return
        with self._lock:
            for key, (_, value) in list(self._kept.items()):
                if isinstance(value, PromptStates) and states.begins_with(value):
                    self._remove(key)
            self._number += 1
            self._add(self._number, states.num_bytes, states)

    def has_features(self, key: str) -> bool:
        """Return whether the features of a crop with this ``key_of_pixels`` are kept."""
        return key in self._kept

    def find_features(self, pixels: torch.Tensor) -> torch.Tensor | None:
        """Return the features (n, D) of a crop's pixels (3, S, S); None where they are not kept."""
        key = key_of_pixels(pixels)
        with self._lock:
            found = self._kept.get(key)
        if found is None or not isinstance(found[1], torch.Tensor):
            return None
        self._touch(key)
        return found[1]

    def add_features(self, pixels: torch.Tensor, features: torch.Tensor) -> None:
        """Keep the features (n, D) of a crop's pixels (3, S, S)."""
        kept = features.detach().clone()
        with self._lock:
            self._add(key_of_pixels(pixels), kept.nbytes, kept)

    def _touch(self, key: Hashable) -> None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)

    def _add(self, key: Hashable, num_bytes: int, value: PromptStates | torch.Tensor) -> None:
        if num_bytes > self.max_bytes:
            return
        if key in self._kept:
            self._remove(key)
        self._kept[key] = num_bytes, value
        self._bytes += num_bytes
        while self._bytes > self.max_bytes:
            self._remove(next(iter(self._kept)))

    def _remove(self, key: Hashable) -> None:
        self._bytes -= self._kept.pop(key)[0]


def key_of_pixels(pixels: torch.Tensor) -> str:
    """Return a hash of a crop's shape, dtype and values."""
    values = pixels.detach().cpu().contiguous()
    header = f"{tuple(values.shape)} {values.dtype} ".encode()
    return hashlib.blake2b(header + values.view(torch.uint8).numpy().tobytes(), digest_size=16).hexdigest()
