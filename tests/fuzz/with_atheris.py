"""Fuzz one reader along the branches of its code, for as long as one likes.

    pip install atheris
    python -m tests.fuzz.with_atheris "atlas" -max_total_time=300

The name is one of `originals.FORMATS`; what follows are options of libFuzzer. Begun with a whole
file, it goes on with what reached a new branch. An input that does harm is kept as `crash-...`, and
read again by giving its name as the last option.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["interp"]):
    from interp.errors import InterpError
    from tests.fuzz.hostile import ODD
    from tests.fuzz.originals import FORMATS


def unsigned(path: Path) -> bytes:
    """The bytes of a file; JSON without its hash, so that what is below it is reached."""
    if path.suffix != ".json":
        return path.read_bytes()
    told = json.loads(path.read_text())
    told.pop("sha256", None)
    return json.dumps(told).encode()


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Half of the time a value in JSON becomes an odd one, else bytes change."""
    chance = random.Random(seed)
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or chance.random() < 0.5:
        mutated: bytes = atheris.Mutate(data, most)
        return mutated
    here: Any = told
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            break
        key = chance.choice(keys)
        if not isinstance(here[key], dict | list) or chance.random() < 0.3:
            here[key] = deepcopy(chance.choice(ODD))
            break
        here = here[key]
    return json.dumps(told).encode()[:most]


def main() -> None:
    name, folder = sys.argv.pop(1), Path(tempfile.mkdtemp())
    kind = FORMATS[name]
    corpus = folder / "corpus"
    corpus.mkdir()
    path = folder / f"file{kind.ending}"
    kind.write(path)
    (corpus / "whole").write_bytes(unsigned(path))
    warnings.simplefilter("error")

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            kind.read(path)
        except InterpError as error:
            said = str(error)
            if path.name not in said or not said.isprintable() or len(said) > 1_500:
                raise AssertionError(f"no sentence about the file: {said!r:.300}") from error

    options = ["-rss_limit_mb=6000", "-timeout=20", "-max_len=20000"]
    given = sys.argv[1:]
    inputs = [] if any(not each.startswith("-") for each in given) else [str(corpus)]
    atheris.Setup([sys.argv[0], *options, *given, *inputs], read, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
