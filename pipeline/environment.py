"""What the params ask for and this machine does not have: known before any work, however late it would be needed."""

import os
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from han_core.tensorfile.file import TensorFileError, read_metadata
from pipeline.execution.launch import too_many_processes
from pipeline.params import Params, start_of

_HOST = "download.pytorch.org"
_VGG16 = "vgg16-397923af.pth"
_SECONDS = 5.0


def data_that_are_not_there(params: Params) -> Iterable[str]:
    """The folders of videos and split files, or the list and its folder, all at once."""
    dataset = params.dataset
    root = "file" if dataset.kind == "list" else "folder"
    wanted = [("root", dataset.root, root)] if dataset.kind != "synthetic" else []
    wanted += [(key, getattr(dataset, key), "folder") for key in ("base", "annotations")]
    for key, path, kind in wanted:
        if path is not None and not (path.is_file() if kind == "file" else path.is_dir()):
            state = f"is not a {kind}" if path.exists() else "does not exist"
            yield f"dataset.{key}: {path} {state}; put the data there or correct the params file"


def files_that_are_not_there(params: Params) -> Iterable[str]:
    """Weights and models that training is to start from: they are there, and are safetensors files by their header."""
    for key, weights in _weights(params):
        if weights not in ("random", "imagenet") and (fault := _unusable(Path(weights), sealed=False)):
            yield f"{key}: {fault}; name a safetensors file, or take imagenet or random"
    if params.train.start is not None:
        for path in dict.fromkeys(start_of(params.train, model) for model in params.models):
            if fault := _unusable(path, sealed=True):
                yield f"train.start: {fault}; name a trained HAN, or null"


def _unusable(path: Path, *, sealed: bool) -> str:
    """Why a file cannot be what training starts from; "" if it can. Its tensors are not read: that takes long.

    Args:
        sealed: whether it must be one of ours.
    """
    if not path.exists():
        return f"{path} does not exist"
    if not path.is_file():
        return f"{path} is not a file"
    try:
        read_metadata(path, sealed=sealed)
    except TensorFileError as error:
        return str(error)
    return ""


def downloads_that_fail(params: Params) -> Iterable[str]:
    """The ImageNet weights of VGG-16, where they are neither here nor to be had."""
    asking = [key for key, weights in _weights(params) if weights == "imagenet"]
    if asking and not (_checkpoints() / _VGG16).is_file() and params.cubes.net == "vgg16" and not _reachable():
        yield (
            f"{', '.join(asking)}: imagenet has to be downloaded, and {_HOST} cannot be reached; copy {_VGG16} into "
            f"{_checkpoints()}, or name a safetensors file, or take random"
        )


def devices_that_are_not_here(params: Params) -> Iterable[str]:
    """GPUs, and what flow's back end needs."""
    from han_core.devices import gpus

    several = params.run.processes > 1 and params.run.device != "cpu"
    # Torch takes seconds to import, so nobody waits for it who asks for nothing.
    found = gpus() if several or params.run.device == "cuda" else 0
    if params.run.device == "cuda" and not found:
        yield "run.device: cuda is asked for, but torch sees no GPU; choose auto or cpu"
    if problem := too_many_processes(params.run, found):
        yield problem
    if params.flow.backend != "auto":
        from han_core.flow.tvl1.solver import resolve_backend

        try:
            resolve_backend(params.flow.backend)
        except ValueError as error:
            yield f"flow.backend: {error}; choose another, or auto"


def _weights(params: Params) -> Iterator[tuple[str, str]]:
    """Key and value of all weights that a stage will read."""
    if params.finetune.splits:
        yield "finetune.spatial.weights", params.finetune.spatial.weights
        yield "finetune.temporal.weights", params.finetune.temporal.weights
    if params.slow_fusion.splits:
        yield "slow_fusion.train.weights", params.slow_fusion.train.weights


def _checkpoints() -> Path:
    """Where torchvision keeps what it downloads; as torch finds it, without importing torch."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", os.path.join(cache, "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def _reachable() -> bool:
    """Whether the weights' host answers; taken for granted behind a proxy, which answers for it."""
    if os.environ.get("https_proxy") or os.environ.get("HTTPS_PROXY"):
        return True
    try:
        socket.create_connection((_HOST, 443), timeout=_SECONDS).close()
    except OSError:
        return False
    return True
