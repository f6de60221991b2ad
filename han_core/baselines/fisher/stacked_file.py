"""A stacked Fisher vector's model as one sealed safetensors file: both layers, and the settings in its metadata."""

import json
from collections.abc import Mapping
from pathlib import Path

from han_core.baselines.fisher.codebook import ChannelCodebook
from han_core.baselines.fisher.stacked import StackedModel
from han_core.baselines.fisher.stacked_params import StackedParams
from han_core.baselines.fisher.stored import mixture_tensors, projection_tensors, read_sealed
from han_core.tensorfile.file import write_tensors

SCHEMA = 1
_KEY = "stacked"
_WHAT = "a model of stacked Fisher vectors"
_FIRST, _COMPRESSION, _WHITENING, _SECOND = "first", "compression", "whitening", "second"


def write_stacked(path: str | Path, model: StackedModel, metadata: Mapping[str, str]) -> None:
    """Write a model; the same model and metadata give the same bytes.

    Args:
        metadata: what else the file should say of itself; ``stacked`` is written here.
    """
    tensors = {
        **projection_tensors(model.local.projection, _FIRST),
        **mixture_tensors(model.local.mixture, _FIRST),
        **projection_tensors(model.compression, _COMPRESSION),
        **projection_tensors(model.whitening, _WHITENING),
        **mixture_tensors(model.second, _SECOND),
    }
    description = json.dumps({"schema": SCHEMA, "params": model.params.to_dict()}, sort_keys=True)
    write_tensors(path, tensors, {**metadata, _KEY: description})


def read_stacked(path: str | Path) -> tuple[StackedModel, dict[str, str]]:
    """A model and its file's metadata, of which :func:`han_core.baselines.fisher.stored.identity` makes a fingerprint.

    Raises:
        CodebookError: it is missing, damaged, or holds no model of this version.
    """
    stored, metadata = read_sealed(path, _WHAT, _KEY)
    try:
        description = json.loads(metadata[_KEY])
    except (ValueError, RecursionError):
        description = None
    if not isinstance(description, dict) or description.get("schema") != SCHEMA:
        raise stored.error(f"does not describe a model of this version (schema {SCHEMA})")
    try:
        params = StackedParams.from_dict(description.get("params"))
    except ValueError as error:
        raise stored.error(f"holds settings that cannot be: {error}") from None
    with stored:
        local = stored.projection(_FIRST)
        first = ChannelCodebook(local, stored.mixture(_FIRST, len(local.components)))
        compression, whitening = stored.projection(_COMPRESSION), stored.projection(_WHITENING)
        second = stored.mixture(_SECOND, len(whitening.components))
    try:
        return StackedModel(first, compression, whitening, second, params), metadata
    except ValueError as error:
        raise stored.error(str(error)) from None
