"""Settings of HAN that were chosen inside the training groups of each split, in place of those of the params file.

``python -m pipeline.select`` writes them to ``choices/<name>.yaml``, ``train.chosen`` names that file; see
docs/selection.md. A variant of HAN that has no section of its own in it takes the section of ``han``.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, ValidationError

from han_core.errors import HanError
from pipeline.params import NOTHING_CHOSEN, Group, Model, Params, Train, problems_of
from pipeline.paths import choices_file
from pipeline.plain_yaml import PlainYamlError, read_plain_yaml

if TYPE_CHECKING:
    from han_core.clips import ClipTable

NEVER_CHOSEN = ("chosen", "seeds")
"""Keys of params group ``train`` that are no setting of a model."""
AGAIN = "choose again: python -m pipeline.select"
_WHOLE = "han"


class ChoicesError(HanError, ValueError):
    """A file of choices that cannot be used, or lacks what is asked of it; the message says what and what to do."""


class Choice(Group):
    """What was chosen for one variant of HAN and one split."""

    settings: dict[str, Any]
    """Dotted keys of params group ``train`` -> their values."""
    clips: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    """:func:`training_clips` of the split that they were chosen on."""


class Choices(Group):
    """The whole file."""

    chosen: dict[Model, dict[Annotated[str, Field(pattern=r"^split_[1-9][0-9]{0,3}$")], Choice]]
    """Variant of HAN -> ``split_<number>`` -> its choice."""


def with_settings(train: Train, settings: Mapping[str, object]) -> Train:
    """The group with other values.

    Args:
        settings: dotted keys -> values; a group of keys is a key, too, and keeps the values that are not given.

    Raises:
        ValidationError: there is no such key, or it cannot have this value.
    """
    return Train.model_validate(_written_out(train, settings))


def unfit_settings(train: Train, settings: Mapping[str, object]) -> list[str]:
    """Why the group cannot have these values, each problem as a line that starts with the key; empty if it can."""
    given = flat(settings)
    problems = [f"{key}: is no setting of a model" for key in given if key.split(".")[0] in NEVER_CHOSEN]
    raw = _written_out(train, settings)
    try:
        Train.model_validate(raw)
    except ValidationError as error:
        problems += problems_of(error, raw, Train)
    return problems


def _written_out(train: Train, settings: Mapping[str, object]) -> dict[str, Any]:
    values = train.model_dump()
    for key, value in flat(settings).items():
        *groups, last = key.split(".")
        group = values
        for name in groups:
            if not isinstance(group.get(name), dict):
                group[name] = {}
            group = group[name]
        if value != {} or not isinstance(group.get(last), dict):
            group[last] = tuple(value) if isinstance(value, list) else value  # a list of JSON
    return values


def flat(settings: Mapping[str, object]) -> dict[str, object]:
    """The same with dotted keys in place of groups: ``{optimizer: {name: sgd}}`` is ``{optimizer.name: sgd}``."""
    found: dict[str, object] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= {f"{key}.{inner}": v for inner, v in flat(value).items()}
        else:
            found[str(key)] = value
    return found


def in_words(settings: Mapping[str, object]) -> str:
    """``epochs: 20, dropout: 0.3``."""
    return ", ".join(f"{key}: {value}" for key, value in settings.items()) or "as in the params"


def training_clips(table: "ClipTable", split: int) -> str:
    """Digest of which clips, and groups, a split has for training: 16 hexadecimal digits."""
    names = "\n".join(f"{clip.key}\0{clip.group}" for clip in table.select(split, "train"))
    return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()[:16]


def read_choices(path: Path, train: Train) -> Choices:
    """Read a file of choices.

    Args:
        train: the group that the chosen settings are to stand in; they are checked with its other values.

    Raises:
        ChoicesError: the file is missing or damaged, or holds what no params file may; the message names all problems.
    """
    try:
        raw = read_plain_yaml(path)
    except OSError as error:
        raise ChoicesError(f"{path}: cannot be read ({error.strerror}); python -m pipeline.select writes it") from None
    except PlainYamlError as error:
        raise ChoicesError(f"{path}: {error}") from None
    if not isinstance(raw, dict):
        raise ChoicesError(f"{path}: must be a mapping with the key `chosen`; {AGAIN}")
    try:
        choices = Choices.model_validate(raw)
    except ValidationError as error:
        raise _told(path, problems_of(error, raw, Choices)) from None
    problems = []
    for model, splits in choices.chosen.items():
        for split, choice in splits.items():
            lines = unfit_settings(train, choice.settings)
            problems += [f"chosen.{model}.{split}.settings.{line}" for line in lines]
    if problems:
        raise _told(path, problems)
    return choices


def not_chosen(params: Params) -> list[str]:
    """What the file that ``train.chosen`` names lacks of the params' models and splits, or is wrong with it."""
    if params.train.chosen == NOTHING_CHOSEN:
        return []
    path = choices_file(params.train.chosen)
    try:
        choices = read_choices(path, params.train)
    except ChoicesError as error:
        return [f"train.chosen: {line}" for line in str(error).splitlines()]
    problems = []
    for model in params.models:
        section = section_of(choices, model)
        absent = [str(split) for split in params.splits if f"split_{split}" not in choices.chosen.get(section, {})]
        if absent:
            problems.append(f"train.chosen: {_lacks(path, model, section, absent)}")
    return problems


def with_chosen(params: Params, model: str, split: int, table: "ClipTable") -> Params:
    """The params with what was chosen for a variant of HAN and a split in ``train``, as if it stood in their file.

    Raises:
        ChoicesError: the file cannot be used, lacks the model or the split, or was chosen on other training clips than
            the split has now, some of which may be test clips.
    """
    if params.train.chosen == NOTHING_CHOSEN:
        return params
    path = choices_file(params.train.chosen)
    choices = read_choices(path, params.train)
    section = section_of(choices, model)
    choice = choices.chosen.get(section, {}).get(f"split_{split}")
    if choice is None:
        raise ChoicesError(f"train.chosen: {_lacks(path, model, section, [str(split)])}")
    if choice.clips != training_clips(table, split):
        raise ChoicesError(
            f"train.chosen: {path}: the settings of {section}, split {split}, were chosen on other training clips, or "
            f"groups of them, than the split has now, so perhaps on some of its test clips; {AGAIN}"
        )
    train = with_settings(params.train, {**choice.settings, "chosen": NOTHING_CHOSEN})
    return params.model_copy(update={"train": train})


def section_of(choices: Choices, model: str) -> str:
    """Whose choices a variant of HAN takes: its own, or those of ``han``."""
    return model if model in choices.chosen else _WHOLE


def _lacks(path: Path, model: str, section: str, splits: list[str]) -> str:
    of = model if section == model else f"{model}, nor of {section} in its place"
    many = f"split{'s' if len(splits) > 1 else ''} {', '.join(splits)}"
    return f"{path}: holds no settings of {of}: {many}; choose them: python -m pipeline.select"


def _told(path: Path, problems: "list[str] | tuple[str, ...]") -> ChoicesError:
    lines = "\n  ".join(problems[:20])
    return ChoicesError(f"{path}: holds what cannot be used; {AGAIN}\n  {lines}")
