"""Fixtures that every test may use."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

PLUGINS = (  # of tests/fixtures
    "marks",
    "tiny_models",
    "judge",
    "replaced_methods",
    "scripts",
    "training",
    "browser",
)
SERVER_PLUGINS = ("serving", "servers", "hosting")  # need the extra serve, which a GPU machine may lack

ROOT = Path(__file__).resolve().parent.parent


def pytest_configure(config: pytest.Config) -> None:
    """Load the shared fixtures, but not where pytest-xdist only hands out tests: their imports take seconds."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        for name in PLUGINS + (SERVER_PLUGINS if find_spec("fastapi") else ()):
            config.pluginmanager.import_plugin(f"fixtures.{name}")


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory) -> Path:
    """No test sees, or writes, what the user's programs have stored: calibration profiles."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["XDG_CACHE_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the references' recorded answers (see tests/parity)."""
    folder = Path(os.environ.get("ADA_GOLDEN", ROOT.parent / "shared" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"no golden data at {folder}; set ADA_GOLDEN to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def image_file(tmp_path_factory) -> Path:
    """An image file."""
    path = tmp_path_factory.mktemp("images") / "image.png"
    Image.effect_noise((20, 30), 90).convert("RGB").save(path)
    return path
