"""The process in which hostile files are read: little memory, and an eye on what is done outside.

Requests are lines of JSON: `{"import": "module:name"}` makes ready, `{"read": "module:name",
"path": ...}` reads. Answers are lines as well; see `hostile.assert_harmless`.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import sysconfig
import warnings
from functools import cache, reduce
from pathlib import Path
from typing import Any

from interp.errors import InterpError

ROOTS = tuple(
    str(Path(place).resolve())
    for place in {*sysconfig.get_paths().values(), sys.base_prefix, Path(__file__).parents[2]}
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = (
    *("os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.kill"),
    *("subprocess.Popen", "pty.spawn", "socket.", "urllib.", "ftplib.", "smtplib.", "http."),
    *("os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate"),
    *("os.chmod", "os.chown", "os.utime", "os.putenv", "os.unsetenv", "os.chdir", "shutil."),
    *("tempfile.", "pickle.find_class", "ctypes.dlopen", "ctypes.dlsym", "marshal.loads"),
    *("code.__new__", "sqlite3.connect", "webbrowser.open", "builtins.input"),
)
STARVED = ("can't allocate memory", "bad_alloc", "malloc of size", "Unable to allocate", "realloc")
"""What libraries say when memory ran out: that is no refusal, whoever caught it."""


class Watch:
    """Notes what Python does to the outside while a file is read, and keeps it from happening."""

    def __init__(self) -> None:
        self.path: str | None = None
        self.touched: list[str] = []
        self.imported = {
            name.partition(".")[0] for name in (*sys.modules, *sys.stdlib_module_names)
        } | {"jax"}  # which jaxtyping looks for whenever it compares shapes
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.path is None or not self._forbids(event, arguments):
            return
        self.touched.append(f"{event} {arguments!r:.200}")
        raise PermissionError(f"{event} while a hostile file is read")

    def _forbids(self, event: str, arguments: tuple[Any, ...]) -> bool:
        if event == "marshal.loads":  # of compiled modules, when Python imports one
            return False
        if event == "open":
            return self._strange(arguments)
        if event == "import":
            return arguments[0].partition(".")[0] not in self.imported
        return event.startswith(FORBIDDEN)

    def _strange(self, arguments: tuple[Any, ...]) -> bool:
        """Whether a file is written, or another one is opened than that which is read."""
        path, mode, flags = arguments
        if isinstance(path, int):
            return False
        if (flags or 0) & WRITES or (isinstance(mode, str) and set(mode) & set("wax+")):
            return True
        name = os.path.realpath(os.fsdecode(path))
        inside = name == self.path or name.startswith(f"{self.path}{os.sep}")
        return not (inside or name.startswith((*ROOTS, "/proc/", "/sys/", "/usr/")))


@cache
def found(name: str) -> Any:
    module, _, qualified = name.partition(":")
    return reduce(getattr, qualified.split("."), importlib.import_module(module))


def outcome(name: str, path: Path) -> dict[str, Any]:
    """What reading a file comes to."""
    try:
        result = found(name)(path)
    except InterpError as error:
        starved = any(word in str(error) for word in STARVED)
        return {"outcome": "starved" if starved else "refused", "message": str(error)}
    except BaseException as error:
        return {"outcome": "broken", "message": f"{type(error).__name__}: {error}"[:2_000]}
    return {"outcome": "read", "result": result if isinstance(result, str | int | float) else None}


def virtual_memory() -> int:
    """Bytes of addresses that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def serve() -> None:
    """Answer until the questions end."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    answers, memory = os.fdopen(os.dup(1), "w"), int(os.environ["FUZZ_MEMORY"])
    os.dup2(2, 1)  # what a library prints is no answer
    watch: Watch | None = None
    for line in sys.stdin:
        request = json.loads(line)
        if "import" in request:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
            found(request["import"])
            answer: dict[str, Any] = {}
        else:
            watch = watch or Watch()
            watch.imported |= {name.partition(".")[0] for name in sys.modules}
            resource.setrlimit(resource.RLIMIT_AS, (virtual_memory() + memory, hard))
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                watch.touched, watch.path = [], os.path.realpath(request["path"])
                answer = outcome(request["read"], Path(request["path"]))
                watch.path = None
            answer |= {"touched": watch.touched, "warned": [str(each.message) for each in warned]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
