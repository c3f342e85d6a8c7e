"""Defines the user errors; each message says what is wrong, with which value, and how to fix it."""


class LlavaError(Exception):
    """A user error: its message is meant for the user; programs print it and exit with code 2."""


class ImageError(LlavaError):
    """An image is missing, unreadable, too large, or does not fit the prompt's image tags."""


class CheckpointError(LlavaError):
    """A checkpoint folder lacks a file or tensor, has one too many, or one of the wrong shape."""


class DataError(LlavaError):
    """A training or evaluation file holds records that cannot be used."""


class OptionError(LlavaError):
    """A flag, request field or keyword has a value that cannot be used."""
