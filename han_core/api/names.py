"""Types of the arguments that the functions of this room share."""

from os import PathLike

AnyPath = str | PathLike[str]
Device = str
"""``auto``, ``cpu``, ``cuda`` or ``cuda:1``: see :func:`han_core.devices.choose_device`."""
