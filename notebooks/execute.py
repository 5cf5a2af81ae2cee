"""Run the notebooks, each in a fresh kernel, and write them back with what came out.

    python notebooks/execute.py [NAME ...]

A name is the beginning of a file's: `execute.py 04`. All notebooks are run by default.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from traitlets.config import Config

FOLDER = Path(__file__).parent
ENVIRONMENT = {
    "PLOTLY_RENDERER": "plotly_mimetype",  # the figure alone: plotly.js has five megabytes
    "INTERP_PROGRESS": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
WIDGET = "application/vnd.jupyter.widget-view+json"


def executed(path: Path, folder: Path) -> NotebookNode:
    """The notebook with what comes out of it in a fresh kernel, whose working folder is `folder`.

    Raises `nbclient.exceptions.CellExecutionError` where a cell raises.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as sockets:  # instead of open ports
        connection = {"transport": "ipc", "connection_file": f"{sockets}/kernel.json"}
        client = NotebookClient(
            notebook,
            timeout=600,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            coalesce_streams=True,
            config=Config(AsyncKernelManager=connection),
        )
        client.execute(env=os.environ | ENVIRONMENT)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_bar(output)]
    notebook.metadata = nbformat.from_dict(METADATA)  # without versions
    return notebook


def _is_bar(output: NotebookNode) -> bool:
    """Whether it is what a progress bar leaves behind."""
    data = output.get("data", {})
    return WIDGET in data or data.get("text/plain") == ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[""], metavar="NAME")
    names = tuple(parser.parse_args().names)
    paths = [path for path in sorted(FOLDER.glob("*.ipynb")) if path.name.startswith(names)]
    if not paths:
        parser.error(f"no notebook is called {' or '.join(names)}")
    for path in paths:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, Path(folder))
        nbformat.write(notebook, path)
        seconds, size = time.perf_counter() - start, path.stat().st_size
        print(f"{path.name}: {seconds:.0f} s, {size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
