"""Which device a stage computes on."""

from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    import torch


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> "torch.device":
    """The device that ``run.device`` names; ``auto`` takes the GPU where there is one.

    Raises:
        click.ClickException: a GPU is asked for and torch sees none.
    """
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("run.device is cuda, but torch sees no GPU; set it to auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
