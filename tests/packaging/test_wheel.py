"""The wheel carries `data/` and `circuits/`, nothing else comes along, and both are found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

CHECKOUT = Path(__file__).parents[2]
SHIPPED = {"data": "interp/_data", "circuits": "interp/_circuits"}

# Run by a python outside the checkout: where the folders are, and that their JSON can be read.
FIND = """
import json, interp.resources as resources
found = {}
for folder in (resources.data_dir(), resources.circuits_dir()):
    for file in folder.rglob("*.json"):
        json.loads(file.read_text(encoding="utf-8"))
    found[str(folder)] = (folder / "README.md").is_file()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from that sdist."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, CHECKOUT, cwd=out)
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to import from in which nothing but the wheel is installed."""
    site = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, "--target", site, next(built.glob("*.whl")), cwd=site)
    return site


@pytest.fixture(scope="module")
def wheel_names(built: Path) -> set[str]:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        return set(wheel.namelist())


@pytest.mark.parametrize(("folder", "inside"), SHIPPED.items())
def test_the_wheel_carries_every_file_of(folder: str, inside: str, wheel_names: set[str]) -> None:
    here = {
        f"{inside}/{path.relative_to(CHECKOUT / folder).as_posix()}"
        for path in (CHECKOUT / folder).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert here
    assert {name for name in wheel_names if name.startswith(f"{inside}/")} == here


def test_the_wheel_carries_its_type_marker(wheel_names: set[str]) -> None:
    assert "interp/py.typed" in wheel_names


def test_the_wheel_holds_one_package_and_its_metadata(wheel_names: set[str]) -> None:
    tops = {PurePosixPath(name).parts[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"interp"}


def test_the_sdist_holds_what_the_wheel_is_built_from_and_no_more(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        tops = {PurePosixPath(name).parts[1] for name in sdist.getnames()}
    assert tops == {
        *("interp", "data", "circuits"),
        *("pyproject.toml", "PKG-INFO", "README.md", "CHANGELOG.md", "LICENSE", ".gitignore"),
    }


def test_an_installed_wheel_finds_its_own_folders(installed: Path, tmp_path: Path) -> None:
    assert found_by_python(cwd=tmp_path, path=installed) == {
        str(installed / inside): True for inside in SHIPPED.values()
    }


def test_an_installed_wheel_lists_the_embedded_models(installed: Path, tmp_path: Path) -> None:
    listed = run(sys.executable, "-m", "interp", "models", "--json", cwd=tmp_path, path=installed)
    shipped = {config.parent.name for config in (CHECKOUT / "data/models").glob("*/config.json")}
    assert {model["name"] for model in json.loads(listed)} == shipped


def test_an_installed_wheel_sweeps_and_reports(installed: Path, tmp_path: Path) -> None:
    for command in ("sweep polymath --task ioi --n 8 --out run", "report run --out report.html"):
        run(sys.executable, "-m", "interp", *command.split(), cwd=tmp_path, path=installed)
    assert "On ioi, removing head" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_checkout_finds_its_own_folders(tmp_path: Path) -> None:
    assert found_by_python(cwd=tmp_path, path=CHECKOUT) == {
        str(CHECKOUT / folder): True for folder in SHIPPED
    }


def test_a_package_without_its_folders_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A copy of the package alone, in a folder that is no checkout of interp."""
    package = tmp_path / "interp"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("resources.py", "errors.py"):
        (package / name).write_text((CHECKOUT / "interp" / name).read_text(encoding="utf-8"))
    (tmp_path / "data").mkdir()
    with pytest.raises(subprocess.CalledProcessError):
        found_by_python(cwd=tmp_path, path=tmp_path)
    message = capfd.readouterr().err
    assert "the folder 'data' that ships with interp is neither at" in message
    assert "reinstall interp, or run from a complete checkout" in message


def found_by_python(*, cwd: Path, path: Path) -> dict[str, bool]:
    found: dict[str, bool] = json.loads(run(sys.executable, "-c", FIND, cwd=cwd, path=path))
    return found


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """Standard output of `command`, run in `cwd` with only `path` to import from."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        env["PYTHONPATH"] = str(path)
    words = [str(word) for word in command]
    return subprocess.run(
        words, cwd=cwd, env=env, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
