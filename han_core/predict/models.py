"""A trained HAN together with the nets that its features come from, from given paths or found in a workspace."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from han_core.camera.compensation import Compensation
from han_core.errors import HanError
from han_core.han.feature_settings import FeatureSettings
from han_core.han.model_file import TrainedHAN, load_model
from han_core.nets.extract import CubeNet
from han_core.nets.sealed_net import WeightsError, net_identity, read_metadata
from han_core.nets.stream_net import open_net

_FULL = re.compile(r"han-(?P<split>\d+)-seed(?P<seed>\d+)")
"""Name of a file that holds the full HAN."""


class PredictError(HanError, ValueError):
    """A label cannot be had; the message says what is missing and what to do."""


@dataclass(frozen=True)
class Recogniser:
    """Everything that turns a video into probabilities. Close it, or its nets' threads live on."""

    path: Path
    trained: TrainedHAN
    nets: Mapping[str, CubeNet]
    """One a stream that the model reads."""
    device: torch.device

    @property
    def recipe(self) -> FeatureSettings:
        assert self.trained.recipe is not None  # load_recogniser refuses others
        return self.trained.recipe

    def close(self) -> None:
        """Let go of the nets."""
        for net in self.nets.values():
            net.__exit__(None, None, None)


def load_recogniser(
    model: Path | None, nets: Mapping[str, Path], *, workspace: Path, device: torch.device | str = "cpu"
) -> Recogniser:
    """Load a model and the nets it needs.

    Args:
        model: file of a trained HAN; None takes :func:`find_model`.
        nets: stream -> file of its net, for streams whose net is not to be looked for in the workspace.
        workspace: project folder whose ``models`` is looked into.

    Raises:
        PredictError: nothing is found, or a net is another than the one that the model learnt from.
        ModelFileError, WeightsError: a file is missing or damaged.
    """
    path = model or find_model(workspace)
    trained = load_model(path)
    if trained.recipe is None:
        raise PredictError(f"{path}: does not say how its input is made; train it again with this version")
    streams = trained.model.config.streams
    if unused := sorted(set(nets) - set(streams)):
        raise PredictError(f"{path}: reads {' and '.join(streams)} features; it does not use a {unused[0]} net")
    try:
        Compensation.of(trained.recipe.camera)
    except ValueError as error:
        raise PredictError(f"{path}: its flow cannot be made: camera {error}") from None
    device = torch.device(device)
    trained.model.to(device)
    loaded: dict[str, CubeNet] = {}
    for stream in streams:
        net_path = nets.get(stream) or find_net(workspace, stream, trained.recipe.nets.get(stream), path)
        loaded[stream] = _load_net(net_path, stream, trained.recipe, path, device)
    return Recogniser(path, trained, loaded, device)


def find_model(workspace: Path) -> Path:
    """The last trained model below ``models/*/han``: of the dataset trained last, the full HAN if it has one, of the
    lowest split and seed.

    Raises:
        PredictError: there is none.
    """
    found = sorted(workspace.glob("models/*/han/*.safetensors"))
    if not found:
        raise PredictError(
            f"{workspace}: holds no trained model (models/<dataset>/han/*.safetensors); name one with --model, "
            "or run `dvc repro` in a project folder first"
        )
    last = max(found, key=lambda path: path.stat().st_mtime)
    full = {
        (int(name["split"]), int(name["seed"])): path
        for path in found
        if path.parent == last.parent and (name := _FULL.fullmatch(path.stem))
    }
    return full[min(full)] if full else last


def find_net(workspace: Path, stream: str, identity: str | None, model: Path) -> Path:
    """The net below ``models/*/nets`` that made the features that a model learnt from.

    Raises:
        PredictError: none has this identity, or the model does not say which.
    """
    option = f"--{stream}-net"
    if identity is None:
        raise PredictError(f"{model}: does not say which {stream} net made its features; name it with {option}")
    for path in sorted(workspace.glob(f"models/*/nets/{stream}-*.safetensors")):
        try:
            if net_identity(path, read_metadata(path)) == identity:
                return path
        except (WeightsError, OSError):  # a damaged file cannot be the one
            continue
    raise PredictError(
        f"{workspace}: none of models/*/nets/{stream}-*.safetensors made the features that {model} was trained on; "
        f"name it with {option}"
    )


def _load_net(path: Path, stream: str, recipe: FeatureSettings, model: Path, device: torch.device) -> CubeNet:
    convention = recipe.inputs.get(stream, "auto")
    opened = open_net(
        path,
        stream,
        stack=recipe.stack,
        camera=recipe.camera,
        convention=convention,
        architecture=None,  # its identity, below, says more
        layer=recipe.layer,
    )
    wanted = recipe.nets.get(stream)
    if wanted is not None and opened.identity != wanted:
        raise PredictError(f"{path}: did not make the {stream} features that {model} was trained on")
    return CubeNet(
        opened.net,
        opened.scale,
        layer=recipe.layer,
        fc=recipe.fc,
        batch=min(recipe.batch, recipe.frames),
        precision=recipe.precision,
        device=device,
    )
