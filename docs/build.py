"""Build the API reference from the docstrings.

    python docs/build.py [FOLDER]

The reference goes to FOLDER, docs/_build by default, and opens from disk without a network. A
warning, such as an annotation that cannot be resolved, is an error.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.render

HERE = Path(__file__).parent
PUBLIC = (
    "interp",
    r"!interp\.(?!zoo\.handmade$)\w+\.\w+",  # a package's own page has what its files export
    r"!interp\.zoo\.handmade\.\w+",
)


def reference(folder: Path) -> None:
    """Write one page for each package."""
    warnings.simplefilter("error")
    pdoc.render.configure(
        docformat="google",
        show_source=False,
        template_directory=HERE / "template",
    )
    pdoc.pdoc(*PUBLIC, output_directory=folder)


if __name__ == "__main__":
    reference(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "_build")
