"""Join a Ray cluster, or start one on this machine."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from interp.errors import ClusterError, one_line

CONNECT_SECONDS = 5.0
OWN_TOKEN = secrets.token_hex(32)
STORE_BYTES = 100 * 2**20
"""Memory of a cluster of our own for what is sent; what is larger lies in files."""


def ray_module() -> ModuleType:
    """Ray, if it is installed. Raises ClusterError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # what is done stays here
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "A cluster needs Ray, which is not installed; pip install interp[cluster]."
        ) from error
    return ray


def start(workers: int | None, cpus: float) -> None:
    """Start a cluster on this machine that has room for so many workers, and join it."""
    _make_token()
    _init(
        "A Ray cluster cannot be started on this machine ({}); ray start --head says more.",
        address="local",
        num_cpus=None if workers is None else math.ceil(workers * cpus),  # None: Ray counts them
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
    )


def join(address: str) -> None:
    """Join a cluster. Raises ClusterError if there is none, or it will not have us."""
    if address != "auto":
        _require_listener(address)
    _init(
        f"The Ray cluster at {address} cannot be joined ({{}}); a driver runs on a node of its "
        "cluster (ray start --address=HOST:PORT makes this machine one), with the same Ray and "
        "Python, and with the cluster's token if it asks for one.",
        address=address,
    )


def _init(failed: str, **options: Any) -> None:
    ray = ray_module()
    refusals = (ConnectionError, RuntimeError, ValueError, ImportError, ray.exceptions.RayError)
    try:
        with _signals_kept():
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except refusals as error:
        raise ClusterError(failed.format(_reason(error))) from error
    # a node's last words would stand on stdout; the crew says that its workers were lost
    ray._private.worker._worker_logs_enabled = False


def leave() -> None:
    """Leave the cluster; one that was started here ends."""
    ray = ray_module()
    ray.shutdown()
    _drop_token(ray)


def require_room(cpus: float, gpus: float) -> None:
    """Raise ClusterError if no node has room for one worker, in a cluster that will not grow."""
    most = {"CPU": 0.0, "GPU": 0.0}
    for node in ray_module().nodes():
        has = {name: node["Resources"].get(name, 0.0) for name in most}
        if has["CPU"] >= cpus and has["GPU"] >= gpus:
            return
        most = {name: max(most[name], has[name]) for name in most}
    raise ClusterError(
        f"A worker asks for {cpus:g} CPUs and {gpus:g} GPUs, and this machine has "
        f"{most['CPU']:g} and {most['GPU']:g}; ask for less (--gpus, cpus=), or name a cluster "
        "that has more (--address)."
    )


def slots(ray: ModuleType, cpus: float, gpus: float) -> int:
    """Workers that the nodes have room for, at least one."""
    room = 0
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            wanted = {"CPU": cpus, "GPU": gpus}
            room += min(int(has.get(what, 0) / n) for what, n in wanted.items() if n)
    return max(1, room)


def _require_listener(address: str) -> None:
    """A cluster that is not there is told at once, and not after Ray's minute."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        raise ClusterError(
            f"{address!r} is no address of a Ray cluster; give HOST:PORT, ray://HOST:PORT or auto."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except OSError as error:
        raise ClusterError(
            f"Nothing answers at {address} ({error.strerror or error}); start a cluster there with "
            "ray start --head, or leave the address out to start one on this machine."
        ) from error


def _make_token() -> None:
    """A cluster listens on the network, so one that Ray starts asks whoever joins it for a token.

    Ray would write one into the home folder; unless there is one, ours stays in this process and
    its children.
    """
    said = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys()
    if not said and not (Path.home() / ".ray" / "auth_token").exists():
        os.environ["RAY_AUTH_TOKEN"] = OWN_TOKEN


def _drop_token(ray: ModuleType) -> None:
    """Let this process join other clusters, which ask for another token or for none."""
    if os.environ.get("RAY_AUTH_TOKEN") != OWN_TOKEN:
        return
    del os.environ["RAY_AUTH_TOKEN"], os.environ["RAY_AUTH_MODE"]  # which Ray has set
    ray._raylet.Config.initialize("")  # first: a thread that still ends looks for the token
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; whoever had it gets it back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _reason(error: BaseException) -> str:
    """The first sentence of the first of a chain of errors."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error).split(". ")[0].rstrip(".")
