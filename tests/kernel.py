"""Runs a notebook as a reader would: a fresh kernel of this Python, and nothing of the user's own Jupyter settings."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"


def execute(path: Path, work: Path) -> nbformat.NotebookNode:
    """The notebook with fresh outputs. Its kernel starts in the empty folder `work/here`; raises CellExecutionError."""
    book = nbformat.read(path, as_version=4)
    here, temporary = work / "here", work / "tmp"
    here.mkdir()
    temporary.mkdir()
    # No kernelspec but that of this very interpreter: an installed one may start another Python.
    specs = KernelSpecManager(kernel_dirs=[])
    own = {name: str(work / name.lower()) for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR")}
    env = {**os.environ, **own, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)}
    # Sockets are files in a folder whose name is short: a path to one may have about a hundred bytes.
    with tempfile.TemporaryDirectory(prefix="k") as sockets:
        manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs, transport="ipc")
        manager.connection_file = str(Path(sockets) / "k.json")
        where = {"metadata": {"path": str(here)}}
        # When a cell's text arrives in several pieces is chance; joined, equal runs give equal files.
        options = {"timeout": 600, "record_timing": False, "coalesce_streams": True}
        client = NotebookClient(book, manager, resources=where, **options)
        client.execute(env=env, cleanup_kc=True)
    assert manager.kernel_spec and manager.kernel_spec.argv[0] == sys.executable
    assert list(here.iterdir()) == [], "a notebook writes into a temporary folder only"
    return book


def printed(book: nbformat.NotebookNode, containing: str) -> str:
    """What the one code cell whose source holds `containing` printed."""
    [cell] = [c for c in book.cells if c.cell_type == "code" and containing in c.source]
    return "".join(output.get("text", "") for output in cell.outputs)
