"""Atomic writes: whatever stops a process, a final name holds the old content or all of the new one."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llava.files.atomic_write import UNFINISHED, atomic_folder, atomic_path, atomic_write

KILLED = """
import os, pathlib, signal, sys
from llava.files.atomic_write import atomic_folder, atomic_path
path, kind = pathlib.Path(sys.argv[1]), sys.argv[2]
with (atomic_path if kind == "file" else atomic_folder)(path) as temporary:
    (temporary if kind == "file" else temporary / "model.safetensors").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def killed_while_writing(path, kind):
    """Run a process that is killed in the middle of writing ``path``."""
    return subprocess.run([sys.executable, "-c", KILLED, str(path), kind], check=False, capture_output=True)


@pytest.mark.parametrize("content", ["two\nlines\r\n", b"\x00\xff"], ids=["text", "bytes"])
def test_atomic_write_replaces_content_and_leaves_no_temporary(tmp_path, content):
    path = tmp_path / "new" / "file.txt"
    atomic_write(path, "old")
    atomic_write(path, content)
    assert path.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert names(path.parent) == ["file.txt"]


def test_atomic_path_keeps_the_suffix(tmp_path):
    """Writers such as Pillow's choose their format by it."""
    with atomic_path(tmp_path / "plot.png") as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path
        temporary.write_text("x")
    assert names(tmp_path) == ["plot.png"]


def test_atomic_path_block_that_raises_keeps_the_old_content(tmp_path):
    atomic_write(tmp_path / "file.json", "old")
    with pytest.raises(RuntimeError, match="stop"), atomic_path(tmp_path / "file.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError("stop")
    assert (tmp_path / "file.json").read_text() == "old"
    assert names(tmp_path) == ["file.json"]


def test_atomic_path_killed_process_keeps_the_old_content(tmp_path):
    atomic_write(tmp_path / "file.json", "old")
    assert killed_while_writing(tmp_path / "file.json", "file").returncode == -9
    assert (tmp_path / "file.json").read_text() == "old"


def test_atomic_path_threads_do_not_share_a_temporary_file(tmp_path):
    barrier, found = threading.Barrier(4), []

    def write(number):
        with atomic_path(tmp_path / "file.txt") as temporary:
            temporary.write_text(str(number) * 1000)
            found.append(temporary.name)
            barrier.wait()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 4
    assert (tmp_path / "file.txt").read_text() in {str(number) * 1000 for number in range(4)}
    assert names(tmp_path) == ["file.txt"]


def test_atomic_folder_moves_every_file_and_leaves_no_temporary(tmp_path):
    with atomic_folder(tmp_path / "new") as part:
        (part / "tower").mkdir()
        for name in ("config.json", "model.safetensors", "tower/config.json"):
            (part / name).write_text(name)
        assert names(tmp_path / "new") == [UNFINISHED]
    assert names(tmp_path / "new") == ["config.json", "model.safetensors", "tower"]
    assert (tmp_path / "new" / "tower" / "config.json").read_text() == "tower/config.json"


def test_atomic_folder_block_that_raises_leaves_no_folder(tmp_path):
    with pytest.raises(OSError, match="full"), atomic_folder(tmp_path / "new") as part:
        (part / "config.json").write_text("{}")
        raise OSError("full")
    assert names(tmp_path) == []


def test_atomic_folder_block_that_raises_keeps_a_folders_files(tmp_path):
    (tmp_path / "config.json").write_text("old")
    with pytest.raises(OSError, match="full"), atomic_folder(tmp_path) as part:
        (part / "config.json").write_text("new")
        raise OSError("full")
    assert names(tmp_path) == ["config.json"]
    assert (tmp_path / "config.json").read_text() == "old"


def test_atomic_folder_killed_process_leaves_no_weights_under_their_final_name(tmp_path):
    assert killed_while_writing(tmp_path / "new", "folder").returncode == -9
    assert names(tmp_path / "new") == [UNFINISHED]
    with atomic_folder(tmp_path / "new") as part:
        (part / "config.json").write_text("{}")
    assert names(tmp_path / "new") == ["config.json"]


def test_atomic_folder_moves_weights_last(tmp_path, monkeypatch):
    moved, replace = [], Path.replace

    def noted(path, target):
        moved.append(path.name)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", noted)
    with atomic_folder(tmp_path / "new") as part:
        for name in ("a.safetensors", "b.bin", "config.json", "tokenizer.json"):
            (part / name).write_text(name)
    assert set(moved[:2]) == {"config.json", "tokenizer.json"} and set(moved[2:]) == {"a.safetensors", "b.bin"}
