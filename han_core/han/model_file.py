"""A trained HAN as one safetensors file: the weights, and in its metadata everything needed to use them.

How the file is written and checked is in :mod:`han_core.han.described`, what it says of itself in
:mod:`han_core.han.description`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from han_core.han.described import ModelKind, read_model, write_model
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
