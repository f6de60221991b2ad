"""A model as one safetensors file: the weights, and in the metadata a description from which the model is made again.

The file is sealed (:mod:`han_core.tensorfile.seal`), and what it says of itself is checked before anything is made of
it: every value of a known type and within sane bounds, and nothing else. So a file from anywhere either loads as it was
written or is refused. What a description of one kind of model holds is said by a class of its own that derives from
:class:`Strict`, e.g. :class:`han_core.han.description.Description`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from han_core.errors import REPAIR, HanError
from han_core.tensorfile.file import TensorFileError, read_tensors, write_tensors
from han_core.tensorfile.seal import CONTENT

Text = Annotated[str, Field(min_length=1, max_length=1000)]


def whole(least: int, most: int) -> type[int]:
    """The type of whole numbers within bounds, which may not be narrower than those of the params: they keep a file
    that was made to do harm from asking for all of a machine's memory."""
    return Annotated[int, Field(ge=least, le=most)]


class Strict(BaseModel):
    """Base of descriptions and of their parts: unknown keys are refused, nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class ModelFileError(HanError, ValueError):
    """The file is not a trained model of the kind wanted, or one that this version cannot read."""


D = TypeVar("D", bound=Strict)


@dataclass(frozen=True)
class ModelKind(Generic[D]):
    """One kind of model, as its files know it."""

    key: str
    """Of the description in the metadata; what tells a file of this kind from others."""
    title: str
    """What a file is said not to be, e.g. ``trained HAN``."""
    schema: int
    """Version of the description."""
    description: type[D]
    empty: Callable[[D], nn.Module]
    """The model of a description, whatever its weights."""


def write_model(
    kind: ModelKind,
    model: nn.Module,
    description: Mapping[str, Any],
    path: Path,
    *,
    made_with: Mapping[str, str] | None = None,
) -> None:
    """Write a model; the same model gives the same bytes.

    Args:
        description: what the kind's description is read from, the schema aside.
        made_with: libraries and processor, for whoever wonders why two models differ.
    """
    text = json.dumps({"schema": kind.schema, **description}, sort_keys=True)
    tools = {"tools": json.dumps(dict(made_with), sort_keys=True)} if made_with else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(path, model.state_dict(), {kind.key: text} | tools)


def read_model(kind: ModelKind[D], path: Path) -> tuple[nn.Module, D]:
    """Read a model that :func:`write_model` wrote, ready to answer. Nothing is unpickled, and no model is made before
    all fits.

    Raises:
        ModelFileError: the file is missing, damaged or of another kind.
    """
    try:
        weights, metadata = read_tensors(path, sealed=False)
    except TensorFileError as error:
        advice = "" if error.problem == "unreadable" else f". Train it again ({REPAIR})"
        raise ModelFileError(f"{path} cannot be read as a trained model: {error}{advice}") from None
    description = _description(kind, metadata, path)
    with torch.device("meta"):  # shapes and no memory; the file's tensors take the place of all of them
        model = kind.empty(description)
    _check_weights(model.state_dict(), weights, path)
    # Copies, because products with memory that is aligned as the file's happens to be are rounded otherwise.
    model.load_state_dict({name: tensor.clone() for name, tensor in weights.items()}, assign=True)
    return model.eval(), description


def parse_description(kind: type[D], text: str) -> D:
    """Parse and check a description.

    Raises:
        ValueError: what is wrong with it, in one line.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        first, *more = error.errors(include_url=False, include_input=False)
        place = ".".join(str(part) for part in first["loc"]) or "its description"
        others = f" (and {len(more)} more)" if more else ""
        raise ValueError(f"{place[:100]}: {first['msg'][:200]}{others}") from None


def _description(kind: ModelKind[D], metadata: Mapping[str, str], path: Path) -> D:
    if kind.key not in metadata:
        raise ModelFileError(f"{path} is a safetensors file, but not a {kind.title}")
    if CONTENT not in metadata:
        what = "carries no checksum: it is damaged, or of an earlier version"
        raise ModelFileError(f"{path} {what}. Train it again ({REPAIR})")
    try:
        return parse_description(kind.description, metadata[kind.key])
    except ValueError as error:
        raise ModelFileError(
            f"{path} does not describe a model of this version (schema {kind.schema}): {error}. Train it again"
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
            raise ModelFileError(f"{path}: {name} holds impossible numbers. Train it again")
