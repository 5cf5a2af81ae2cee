"""Hub names: the local cache first, then the network, and what is said where neither serves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.families import tiny, tiny_tokenizer
from tests.models.hub_server import COMMIT, serve

# huggingface_hub reads its environment at import, so loading happens in a process of its own.
LOAD_ALL = """
import json, sys
from interp.models import load
from tests.families import tiny_tokenizer
for name, options in json.loads(sys.argv[1]):
    if options.pop("own_tokenizer", False):
        options["tokenizer"] = tiny_tokenizer()
    try:
        model = load(name, device="cpu", check=False, **options)
        print(model.id, model.encode("w3"), model.geometry.n_kv_heads)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""
Loads = dict[str, tuple[str, dict[str, Any]]]
LOADS: Loads = {
    "cached": ("someone/tiny-llama", {}),
    "commit": ("someone/tiny-llama", {"revision": COMMIT}),
    "absent": ("someone/else", {}),
    "well-known": ("EleutherAI/pythia-70m", {}),
    "misspelt": ("EleutherAI/pythia-71m", {}),
    "no-weights": ("someone/no-weights", {}),
    "no-tokenizer": ("someone/no-tokenizer", {}),
    "own-tokenizer": ("someone/no-tokenizer", {"own_tokenizer": True}),
}


def load_all(loads: Loads, home: Path, **environment: str) -> dict[str, str]:
    """What each load came to, in a fresh process with this hub cache."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, json.dumps(list(loads.values()))],
        capture_output=True,
        text=True,
        check=True,
        env={**clean, "HF_HOME": str(home), **environment},
        cwd=Path(__file__).parents[2],
    )
    return dict(zip(loads, done.stdout.splitlines(), strict=True))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    tiny("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def lay_out(files: Path, repository: Path, *, without: str = "no such file") -> None:
    """Copy files into a hub cache as the hub lays them: blobs, refs, snapshots of links."""
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    for i, file in enumerate(sorted(files.iterdir())):
        if not file.name.startswith(without):
            blob = repository / "blobs" / f"{i:040x}"
            shutil.copy(file, blob)
            (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")


@pytest.fixture(scope="module", params=["1", "0"], ids=["offline mode", "no network"])
def said(
    request: pytest.FixtureRequest, files: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    home = tmp_path_factory.mktemp("home")
    lay_out(files, home / "hub" / "models--someone--tiny-llama")
    lay_out(files, home / "hub" / "models--someone--no-weights", without="model")
    lay_out(files, home / "hub" / "models--someone--no-tokenizer", without="tokenizer")
    nowhere = "http://127.0.0.1:9"
    return load_all(LOADS, home, HF_HUB_OFFLINE=request.param, HF_ENDPOINT=nowhere)


def test_cached_models_need_no_network(said: dict[str, str]) -> None:
    assert said["cached"] == said["commit"] == "someone/tiny-llama [3] 2"


def test_not_cached_and_no_network(said: dict[str, str]) -> None:
    assert said["absent"] == (
        "ModelError: 'someone/else' is not in the local hub cache and the hub cannot be reached; "
        "run `hf download someone/else --local-dir DIR` on a machine with a network, copy DIR here "
        "and pass its path."
    )


def test_a_well_known_name_is_not_called_unknown(said: dict[str, str]) -> None:
    assert said["well-known"].startswith("ModelError: 'EleutherAI/pythia-70m' is not in the local")


def test_a_misspelt_name(said: dict[str, str]) -> None:
    assert said["misspelt"].startswith(
        "UnknownModel: 'EleutherAI/pythia-71m' is neither an embedded model, nor a directory, nor "
    )
    assert "did you mean EleutherAI/pythia-" in said["misspelt"]


def test_half_a_cache_is_not_loaded(said: dict[str, str]) -> None:
    for kind in ("no-weights", "no-tokenizer"):
        assert said[kind].startswith(f"ModelError: 'someone/{kind}' is not in the local hub cache")


def test_weights_alone_serve_with_a_tokenizer_given(said: dict[str, str]) -> None:
    assert said["own-tokenizer"] == "someone/no-tokenizer [3] 2"


def test_download_and_refusals(files: Path, tmp_path: Path) -> None:
    served = tmp_path / "served"
    shutil.copytree(files, served)
    (served / "pytorch_model.bin").write_bytes(b"never fetched beside safetensors")
    (served / "flax_model.msgpack").write_bytes(b"never fetched")
    loads: Loads = {
        "first": ("someone/tiny-llama", {}),
        "again": ("someone/tiny-llama", {}),
        "gated": ("someone/gated", {}),
        "private": ("someone/private", {}),
        "no-revision": ("someone/no-revision", {"revision": "v9"}),
    }
    fetched: list[str] = []
    with serve(served, "someone/tiny-llama", fetched) as address:
        said = load_all(loads, tmp_path / "home", HF_ENDPOINT=address)
    assert said["first"] == said["again"] == "someone/tiny-llama [3] 2"
    assert sorted(fetched) == sorted(file.name for file in files.iterdir()), "each file, and once"
    assert said["gated"].startswith("ModelError: 'someone/gated' asks for a licence or login")
    assert "nor a public hub repository" in said["private"]
    assert said["no-revision"].startswith(
        "UnknownModel: 'someone/no-revision' has no revision 'v9' on the hub"
    )
