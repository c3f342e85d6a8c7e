"""The addresses of a chat's pictures -> base64, as workers take them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from llava.errors import ImageError
from llava.serve.openai_compat.safe_fetch import PublicFetcher


@dataclass
class ImageAddresses:
    """``fetcher`` None: only data URLs are read. What is in a picture is for the worker to judge."""

    fetcher: PublicFetcher | None = None
    max_images: int = 8

    async def base64_of(self, addresses: Sequence[str]) -> list[str]:
        """Raises ImageError, with the picture's number, for an address that cannot or may not be read."""
        if len(addresses) > self.max_images:
            raise ImageError(f"{len(addresses)} images given; at most {self.max_images} are read")
        # One after the other, and all refused addresses in front of the first that is fetched.
        places = [self._checked(address, number) for number, address in enumerate(addresses, start=1)]
        return [await self._read(address, number) for number, address in places]

    def _checked(self, address: str, number: int) -> tuple[int, str]:
        scheme = address[:8].partition(":")[0].lower()
        if scheme == "data" or (scheme in ("http", "https") and self.fetcher is not None):
            return number, address
        if scheme in ("http", "https"):
            raise ImageError(
                f"image {number}: this server fetches no addresses; send the picture as data:image/...;base64,... , or "
                "start the server with --allow-image-urls"
            )
        raise ImageError(f"image {number}: {address[:100]!r} is no address; expected data:image/...;base64,...")

    async def _read(self, address: str, number: int) -> str:
        if address[:5].lower() == "data:":
            return base64_of_data_url(address, number)
        assert self.fetcher is not None
        try:
            return base64.b64encode(await self.fetcher.fetch(address)).decode("ascii")
        except ImageError as error:
            raise ImageError(f"image {number}: {error}") from error


def base64_of_data_url(address: str, number: int) -> str:
    """The base64 of ``data:image/png;base64,...``, unread."""
    head, comma, text = address.partition(",")
    kind, *options = head[5:].lower().split(";")
    if not comma or "base64" not in [option.strip() for option in options]:
        raise ImageError(f"image {number}: {address[:60]!r} is no base64 data URL; expected data:image/...;base64,...")
    if not kind.strip().startswith("image/"):
        raise ImageError(f"image {number}: the data URL is of the type {kind[:50]!r}; expected image/png or the like")
    return text
