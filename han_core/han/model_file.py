"""A trained HAN as one safetensors file: the weights, and in its metadata everything needed to use them.

How the file is written and checked is in :mod:`han_core.han.described`, what it says of itself in
:mod:`han_core.han.description`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from han_core.han.described import ModelFileError, ModelKind, read_model, write_model
from han_core.han.description import SCHEMA, Description
from han_core.han.feature_settings import FeatureSettings
from han_core.han.model import HAN

_KIND = ModelKind("han", "trained HAN", SCHEMA, Description, lambda description: HAN(description.model_config_of()))


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
        "config": trained.model.config.to_dict(),
        "variant": trained.variant,
        "classes": trained.classes,
        "source": trained.source,
    }
    if trained.recipe is not None:
        description["recipe"] = trained.recipe.to_dict()
    write_model(_KIND, trained.model, description, path, made_with=made_with)


def load_model(path: Path) -> TrainedHAN:
    """Read a model that :func:`save_model` wrote. Nothing is unpickled, and no model is made before all fits.

    Raises:
        ModelFileError: the file is missing, damaged or of another kind.
    """
    model, description = read_model(_KIND, path)
    return TrainedHAN(
        model, description.variant, description.classes, description.source, description.feature_settings()
    )


_STARTING = ("streams", "channels", "regions", "attention", "lstm_size", "layers", "initial_state")
"""Of the config, what two models must share for one to start from the other's weights."""


def start_from(model: HAN, path: Path) -> str:
    """Give a new model the weights of a trained one, all but the classifier's: its classes may be others.

    The statistics by which glimpses are standardised stay those of the new model.

    Args:
        model: changed in place.
        path: of a file that :func:`save_model` wrote.

    Returns:
        The identity of what was read.

    Raises:
        ModelFileError: the file is missing or damaged, or its model has another shape.
    """
    other = load_model(path).model
    for name in _STARTING:
        own, given = getattr(model.config, name), getattr(other.config, name)
        if own != given:
            raise ModelFileError(f"{path}: has {name} {given}, but the model that should start from it has {own}")
    kept = {name: tensor for name, tensor in other.state_dict().items() if not name.startswith(_OWN)}
    model.load_state_dict(model.state_dict() | kept)
    digest = hashlib.sha256()
    for name, tensor in sorted(kept.items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


_OWN = ("classifier.", "mean", "deviation")
"""Names of weights and statistics that a model does not take from another."""
