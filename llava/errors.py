"""The errors that a user can mend. Each message says what, with which value, and how to mend it."""


class LlavaError(Exception):
    """Base of all errors whose message is meant for the user; programs print it and exit with code 2."""


class ImageError(LlavaError):
    """An image is missing, unreadable, too large, or does not fit the prompt's image tags."""


class CheckpointError(LlavaError):
    """A checkpoint folder lacks a file or tensor, holds one too many, or one of the wrong shape."""


class DataError(LlavaError):
    """A training or evaluation file holds records that cannot be used."""


class OptionError(LlavaError):
    """A flag, request field or keyword has a value that cannot be used."""
