"""Do two processes compute with the same software? Other versions give other numbers."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version

from interp.errors import ClusterError

PACKAGES = ("interp", "torch", "transformers", "transformer-lens")


def versions() -> dict[str, str]:
    """Those of this process. How torch was built (+cpu, +cu130) may differ between nodes."""
    found = {package: version(package).partition("+")[0] for package in PACKAGES}
    return {"python": ".".join(platform.python_version_tuple()[:2]), **found}


def require_same(drivers: Mapping[str, str]) -> None:
    """Raise ClusterError, naming every difference, unless a driver's are those of this process."""
    ours = versions()
    differ = [
        f"{name} is {drivers.get(name, 'missing')} in the driver and {ours[name]} on "
        f"{platform.node()}"
        for name in ours
        if ours[name] != drivers.get(name)
    ]
    if differ:
        raise ClusterError(
            f"A worker has other versions: {'; '.join(differ)}; install the same on every node."
        )
