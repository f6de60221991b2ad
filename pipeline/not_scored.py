"""Nets that are not scored, and what stands in a folder of scores then."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import click


def why_not(metadata: Mapping[str, str], classes: Sequence[str]) -> str:
    """Why a net's scores would mean nothing for a dataset of these classes; "" if they mean something."""
    architecture = metadata.get("architecture", "")
    if architecture.startswith("torchvision ") and architecture != "torchvision vgg16":
        return f"it is a {architecture.removeprefix('torchvision ')}, and only a VGG-16 is scored (cubes.net)"
    if metadata.get("classifier") == "random":
        return "its last layer is random: it was not trained (finetune iterations: 0)"
    if metadata.get("classifier") != "trained" or "classes" not in metadata:
        return "the file does not say which classes it learnt; make it with stage finetune"
    known = json.loads(metadata["classes"])
    if known != list(classes):
        return f"it knows other classes ({len(known)}, {', '.join(known[:3])}, ..) than the dataset ({len(classes)})"
    return ""


def leave_out(output: Path, reason: str) -> None:
    """Say in a folder of scores why there are none."""
    from han_core.baselines.two_stream.scorefile import NOT_SCORED
    from pipeline.execution.contents import write_no_contents
    from pipeline.execution.outputs import clear

    clear(output)
    output.mkdir(parents=True)
    (output / NOT_SCORED).write_text(reason + "\n", encoding="utf-8")
    write_no_contents(output, reason)
    click.echo(f"scores {output.name}: not scored: {reason}")


def why_not_scored(folder: Path) -> str:
    """Why a net was left out; "" if it was not."""
    from han_core.baselines.two_stream.scorefile import NOT_SCORED

    reason = folder / NOT_SCORED
    return reason.read_text(encoding="utf-8").strip() if reason.exists() else ""
