"""Fixtures for tests of the servers."""

from collections.abc import AsyncIterator

import pytest
from fixtures.fake_workers import Fleet


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """A controller in this process, to which fake workers are added."""
    fleet = Fleet()
    yield fleet
    await fleet.client.aclose()
