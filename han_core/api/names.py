"""Types of the arguments that the functions of this room share."""

from os import PathLike
from typing import Literal

AnyPath = str | PathLike[str]
Device = Literal["auto", "cpu", "cuda"]
