"""A trained HAN as one safetensors file: the weights, and in its metadata everything needed to use them.

The file is sealed (:mod:`han_core.tensorfile.seal`), and what it says of itself is checked before anything is made of
it (:mod:`han_core.han.description`), so a file from anywhere either loads as it was written or is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from han_core.errors import REPAIR, HanError
from han_core.han.description import SCHEMA, Description, read_description
from han_core.han.feature_settings import FeatureSettings
from han_core.han.model import HAN
from han_core.tensorfile.file import TensorFileError, read_tensors, write_tensors
from han_core.tensorfile.seal import CONTENT


class ModelFileError(HanError, ValueError):
    """The file is not a trained HAN, or one that this version cannot read."""


@dataclass(frozen=True)
class TrainedHAN:
    """A model with what a user of it must know."""

    model: HAN
    variant: str
    classes: tuple[str, ...]
    """Class names by label."""
    source: str
    """``cubes``, or the fully connected layer whose features it reads."""
    recipe: FeatureSettings | None = None
    """How its input was made; None where whoever saved the model did not say."""


def save_model(trained: TrainedHAN, path: Path, *, made_with: Mapping[str, str] | None = None) -> None:
    """Write a model; the same model gives the same bytes.

    Args:
        made_with: libraries and processor, for whoever wonders why two models differ.
    """
    description = {
        "schema": SCHEMA,
        "config": trained.model.config.to_dict(),
        "variant": trained.variant,
        "classes": trained.classes,
        "source": trained.source,
    }
    if trained.recipe is not None:
        description["recipe"] = trained.recipe.to_dict()
    tools = {"tools": json.dumps(dict(made_with), sort_keys=True)} if made_with else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, trained.model.state_dict(), {"han": json.dumps(description, sort_keys=True)} | tools)


def load_model(path: Path) -> TrainedHAN:
    """Read a model that :func:`save_model` wrote. Nothing is unpickled, and no model is made before all fits.

    Raises:
        ModelFileError: the file is missing, damaged or of another kind.
    """
    try:
        weights, metadata = read_tensors(path, sealed=False)
    except TensorFileError as error:
        advice = "" if error.problem == "unreadable" else f". Train it again ({REPAIR})"
        raise ModelFileError(f"{path} cannot be read as a trained model: {error}{advice}") from None
    description = _description(metadata, path)
    with torch.device("meta"):  # shapes and no memory; the file's tensors take the place of all of them
        model = HAN(description.model_config_of())
    _check_weights(model.state_dict(), weights, path)
    model.load_state_dict(weights, assign=True)
    model.eval()
    return TrainedHAN(
        model, description.variant, description.classes, description.source, description.feature_settings()
    )


def _description(metadata: Mapping[str, str], path: Path) -> Description:
    if "han" not in metadata:
        raise ModelFileError(f"{path} is a safetensors file, but not a trained HAN")
    if CONTENT not in metadata:
        what = "carries no checksum: it is damaged, or of an earlier version"
        raise ModelFileError(f"{path} {what}. Train it again ({REPAIR})")
    try:
        return read_description(metadata["han"])
    except ValueError as error:
        raise ModelFileError(
            f"{path} does not describe a model of this version (schema {SCHEMA}): {error}. Train it again"
        ) from None


def _check_weights(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], path: Path) -> None:
    if differing := sorted(wanted.keys() ^ found.keys()):
        said = "lacks" if differing[0] in wanted else "has"
        raise ModelFileError(f"{path} is not the model that it describes: it {said} {differing[0]}. Train it again")
    for name, tensor in found.items():
        if tensor.shape != wanted[name].shape or tensor.dtype != wanted[name].dtype:
            raise ModelFileError(
                f"{path}: {name} is {tuple(tensor.shape)} of {tensor.dtype}, but the model it describes needs "
                f"{tuple(wanted[name].shape)} of {wanted[name].dtype}. Train it again"
            )
        if not tensor.isfinite().all() or (name == "deviation" and not (tensor > 0).all()):
            raise ModelFileError(f"{path}: {name} holds numbers that no model has. Train it again")
