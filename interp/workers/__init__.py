"""Workers: who computes? This process, several devices of this machine, or a Ray cluster."""

from interp.workers.devices import Devices
from interp.workers.here import Here, engine_or_here
from interp.workers.on_ray import Ray
from interp.workers.work import Engine, Item, Work, kept_and_computed

__all__ = [
    "Devices",
    "Engine",
    "Here",
    "Item",
    "Ray",
    "Work",
    "engine_or_here",
    "kept_and_computed",
]
