"""Uploads to the demo: how much its disk holds for all visitors."""

import httpx
import pytest
from fastapi import FastAPI, Request
from fixtures.fake_controller import asking

from llava.serve.web.content_policy import POLICY, ContentPolicy
from llava.serve.web.uploads import UploadQuota

pytestmark = pytest.mark.anyio


@pytest.fixture
def app(tmp_path) -> FastAPI:
    """A server that stores what is uploaded: at most 100 bytes, and 3 files."""
    app = FastAPI()
    app.add_middleware(UploadQuota, folder=tmp_path, max_bytes=100, max_files=3)
    app.add_middleware(ContentPolicy)

    @app.post("/gradio_api/upload")
    @app.post("/other")
    async def upload(request: Request) -> dict:
        number = len(list(tmp_path.iterdir()))
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "file").write_bytes(await request.body())
        return {"number": number}

    return app


async def put(client: httpx.AsyncClient, size: int, path: str = "/gradio_api/upload") -> int:
    return (await client.post(path, content=b"x" * size)).status_code


async def test_upload_beyond_the_bytes_of_all_is_refused(app) -> None:
    async with asking(app) as client:
        assert [await put(client, size) for size in (60, 41, 40, 1)] == [200, 507, 200, 507]
        assert await put(client, 500, "/other") == 200, "other requests are not counted"


async def test_upload_beyond_the_number_of_files_is_refused(app) -> None:
    async with asking(app) as client:
        assert [await put(client, 1) for _ in range(4)] == [200, 200, 200, 507]


async def test_upload_fits_again_once_files_were_deleted(app, tmp_path) -> None:
    async with asking(app) as client:
        assert [await put(client, 100), await put(client, 1)] == [200, 507]
        (tmp_path / "0" / "file").unlink()
        assert await put(client, 1) == 200


@pytest.mark.parametrize("size", [None, "-5", "many", "1e3"])
async def test_upload_without_its_size_is_refused(app, size) -> None:
    async def pieces():
        yield b"x"

    headers = {} if size is None else {"Content-Length": size}
    async with asking(app) as client:
        reply = await client.post("/gradio_api/upload", content=pieces(), headers=headers)
    assert reply.status_code == 411 and "Content-Length" in reply.json()["detail"]


async def test_every_reply_forbids_other_addresses(app) -> None:
    async with asking(app) as client:
        replies = [await client.get("/"), await client.post("/other"), await client.post("/gradio_api/upload")]
    assert {reply.headers["Content-Security-Policy"] for reply in replies} == {POLICY}
    assert "http" not in POLICY and "*" not in POLICY
    assert POLICY.startswith("default-src 'self'") and "script-src 'self'" in POLICY
