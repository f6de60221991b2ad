"""A trained HAN as one safetensors file: the weights, and in its metadata everything needed to use them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from han_core.errors import HanError
from han_core.han.config import HANConfig
from han_core.han.feature_settings import FeatureSettings
from han_core.han.model import HAN

SCHEMA = 1


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
    """How its input was made; None in files of versions that did not write it."""


def save_model(trained: TrainedHAN, path: Path) -> None:
    """Write a model; the same model gives the same bytes."""
    description = {
        "schema": SCHEMA,
        "config": trained.model.config.to_dict(),
        "variant": trained.variant,
        "classes": trained.classes,
        "source": trained.source,
    }
    if trained.recipe is not None:
        description["recipe"] = trained.recipe.to_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous().cpu() for name, value in trained.model.state_dict().items()}
    save_file(weights, path, metadata={"han": json.dumps(description, sort_keys=True)})


def load_model(path: Path) -> TrainedHAN:
    """Read a model that :func:`save_model` wrote. Nothing is unpickled.

    Raises:
        ModelFileError: the file is missing, damaged or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no mapping
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{path} cannot be read as a trained model: {error}") from None
    description = _description(metadata, path)
    model = HAN(HANConfig.from_dict(description["config"]))
    model.load_state_dict(weights)
    model.eval()
    recipe = FeatureSettings.from_dict(description["recipe"]) if "recipe" in description else None
    return TrainedHAN(model, description["variant"], tuple(description["classes"]), description["source"], recipe)


def _description(metadata: Mapping[str, str], path: Path) -> dict:
    if "han" not in metadata:
        raise ModelFileError(f"{path} is a safetensors file, but not a trained HAN")
    description = json.loads(metadata["han"])
    if description["schema"] != SCHEMA:
        raise ModelFileError(f"{path} has schema {description['schema']}; this version reads {SCHEMA}. Train it again.")
    return description
