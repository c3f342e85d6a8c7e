"""Reads the image URLs of a chat into base64, as workers take them: data URLs and, where allowed, http(s) URLs."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from llava.errors import ImageError
from llava.flags import flag
from llava.serve.middleware.body_limits import MIB
from llava.serve.openai_compat.safe_fetch import PublicFetcher


@dataclass(frozen=True)
class ImageOptions:
    """Images in requests: how many, and where from."""

    max_images: int = flag(8, "maximum number of images in one request", metavar="COUNT")
    allow_image_urls: bool = flag(False, "fetch images from http(s) URLs of the public internet")
    image_url_timeout_s: float = flag(
        10.0, "maximum time that fetching an image may take, in seconds", name="--image-url-timeout", metavar="SECONDS"
    )
    max_image_bytes: int = flag(
        8 * MIB,
        "maximum size of an image file that is fetched, in MiB",
        name="--max-image-mib",
        unit=MIB,
        metavar="MIB",
    )

    def reader(self) -> ImageUrls:
        """Make the reader of image URLs that these options ask for."""
        fetcher = PublicFetcher(self.max_image_bytes, self.image_url_timeout_s) if self.allow_image_urls else None
        return ImageUrls(fetcher, self.max_images)


@dataclass
class ImageUrls:
    """Reads image URLs. ``fetcher`` None: data URLs only. Whether a file is an image is for the worker to check."""

    fetcher: PublicFetcher | None = None
    max_images: int = 8

    async def read_base64(self, urls: Sequence[str]) -> list[str]:
        """Read images; return the base64 of each.

        Raises ImageError, with the image's number, for a URL that cannot or may not be read.
        """
        if len(urls) > self.max_images:
            raise ImageError(f"{len(urls)} images given; at most {self.max_images} are read")
        for number, url in enumerate(urls, start=1):  # refuse all bad URLs before the first one is fetched
            self._check_scheme(url, number)
        return [await self._read(url, number) for number, url in enumerate(urls, start=1)]

    def _check_scheme(self, url: str, number: int) -> None:
        scheme = url[:8].partition(":")[0].lower()
        if scheme == "data" or (scheme in ("http", "https") and self.fetcher is not None):
            return
        if scheme in ("http", "https"):
            raise ImageError(
                f"image {number}: this server fetches no URLs; send the image as data:image/...;base64,... , or "
                "start the server with --allow-image-urls"
            )
        raise ImageError(f"image {number}: {url[:100]!r} is not a URL; expected data:image/...;base64,...")

    async def _read(self, url: str, number: int) -> str:
        if url[:5].lower() == "data:":
            return base64_of_data_url(url, number)
        assert self.fetcher is not None
        try:
            return base64.b64encode(await self.fetcher.fetch(url)).decode("ascii")
        except ImageError as error:
            raise ImageError(f"image {number}: {error}") from error


def base64_of_data_url(url: str, number: int) -> str:
    """Return the base64 text of ``data:image/png;base64,...``, not decoded. ``number``: the image's, for messages.

    Raises ImageError for a data URL that is not base64 or not an image.
    """
    head, comma, text = url.partition(",")
    media_type, *parameters = head[5:].lower().split(";")
    if not comma or "base64" not in [parameter.strip() for parameter in parameters]:
        raise ImageError(f"image {number}: {url[:60]!r} is no base64 data URL; expected data:image/...;base64,...")
    if not media_type.strip().startswith("image/"):
        raise ImageError(
            f"image {number}: the data URL is of the type {media_type[:50]!r}; expected image/png or the like"
        )
    return text
