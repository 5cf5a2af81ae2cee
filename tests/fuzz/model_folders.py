"""Small model directories of two formats, and what loads one elsewhere."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from interp.models import load, native
from tests.families import tiny, tiny_tokenizer

FAMILIES = ("llama", "gpt2", "native")


@cache
def whole(family: str) -> Path:
    """A whole directory, to copy."""
    folder = Path(mkdtemp()) / family
    if family == "native":
        native.save(tiny("native"), tiny_tokenizer(), folder)
    else:
        tiny(family).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
    return folder


def read_model(folder: Path) -> str:
    """Load a directory; the hash of its weights."""
    model = load(folder, check=False, device="cpu")
    assert model.encode("a b")
    return model.weights_hash


def warm_up() -> None:
    """Import what is imported when models are loaded, before anyone watches."""
    for family in FAMILIES:
        read_model(whole(family))
        shutil.rmtree(whole(family).parent)
    whole.cache_clear()


warm_up()
