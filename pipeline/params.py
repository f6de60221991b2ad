"""``params.yaml`` as one typed, frozen object.

Every stage calls :func:`load_params` before it does anything else, and stage ``check`` before any other stage runs, so
that a wrong value is refused before any work, and every wrong value is named in one report. The classes of
:mod:`pipeline.settings` are the only list of what may be set; each field is described once, there.
"""

import posixpath
from pathlib import Path
from typing import Annotated

import click
from pydantic import AfterValidator, Field, ValidationError, model_validator

from han_core.camera.compensation import Compensation
from han_core.datasets.synthetic.generate import SyntheticSpec
from han_core.rows import families
from pipeline.plain_yaml import PlainYamlError, read_plain_yaml
from pipeline.settings.data import Dataset, Decode, Flow, Synthetic
from pipeline.settings.han import NOTHING_CHOSEN, Train, start_of
from pipeline.settings.kinds import Group, Seed, Split
from pipeline.settings.nets import VGG16, Cubes, Finetune, Recipe, Scores
from pipeline.settings.problems import ParamsError, problems_of, shown
from pipeline.settings.results import TABLE_1, Baseline, Evaluate, Model, Report
from pipeline.settings.run import SCHEDULER, Run
from pipeline.settings.systems import (
    SVM,
    SYSTEMS,
    TDD,
    CnnLstm,
    Fisher,
    SlowFusion,
    SlowFusionRecipe,
    Stacked,
    TDDCubes,
    Trajectories,
)

__all__ = [
    "NOTHING_CHOSEN",
    "SEED",
    "SYSTEMS",
    "VGG16",
    "Baseline",
    "CnnLstm",
    "Flow",
    "Group",
    "Model",
    "Params",
    "ParamsError",
    "Recipe",
    "Run",
    "Seed",
    "SlowFusionRecipe",
    "Stacked",
    "Train",
    "load_params",
    "params_option",
    "problems_of",
    "start_of",
    "synthetic_spec",
]
"""Whoever uses a group of the settings finds it here."""


def _compensation(name: str) -> str:
    Compensation.of(name)
    return name


class Params(Group):
    seed: Seed = 1
    splits: Annotated[tuple[Split, ...], Field(min_length=1)]
    models: Annotated[tuple[Model, ...], Field(min_length=1)] = TABLE_1
    stack: Annotated[int, Field(ge=1, le=1000)] = 10
    """L: flow fields in one input of the temporal net."""
    camera: Annotated[str, AfterValidator(_compensation)] = "none"
    """The camera's motion in the flow of the temporal net: left in, as in the paper (``none``); taken for the mean of
    each field and subtracted, as [16] does; or for a homography fitted to it, as trajectories do. With ``-still0.5`` at
    the end vectors that are shorter than 0.5 per cent of the frame's shorter side are none; ``still0.5`` is that alone.
    The stored flow stays as it is: trajectories read it, and stage ``steady`` makes the other out of it."""
    dataset: Dataset
    synthetic: Synthetic | None = None
    run: Run = Run()
    decode: Decode = Decode()
    flow: Flow = Flow()
    finetune: Finetune = Finetune()
    cubes: Cubes
    scores: Scores = Scores()
    train: Train = Train()
    cnn_lstm: CnnLstm = CnnLstm()
    trajectories: Trajectories = Trajectories()
    fisher: Fisher = Fisher()
    tdd: TDD = TDD()
    tdd_cubes: TDDCubes = TDDCubes()
    stacked: Stacked = Stacked()
    svm: SVM = SVM()
    slow_fusion: SlowFusion = SlowFusion()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()

    @property
    def families(self) -> tuple[str, ...]:
        """The rows, or families of rows (``han_core/rows.py``), that are evaluated and reported, in this order."""
        two_stream = families("two_stream") if self.scores.enabled else ()
        systems = (family for family, group in SYSTEMS.items() if getattr(self, group).splits)
        return (*self.models, *two_stream, *systems, *self.evaluate.baselines)

    def seeds_of(self, family: str) -> tuple[int | None, ...]:
        """The seeds of a family's models, each with predictions of its own; (None,) where that is no setting."""
        return self.train.seeds if family in self.models else (None,)

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        problems = []
        lists = {"splits": self.splits, "models": self.models, "cubes.views": self.cubes.views}
        for key, values in (lists | {"train.views": self.train.views}).items():
            if len(set(values)) < len(values):
                problems.append(f"{key}: holds a value twice")
        if self.dataset.kind == "synthetic" and self.synthetic is None:
            problems.append("synthetic: is missing, but dataset.kind is synthetic")
        if (self.dataset.kind == "synthetic") != bool(self.dataset.generate):
            problems.append("dataset.generate: must be [synthetic] for dataset.kind synthetic, [] for any other kind")
        if self.dataset.kind == "synthetic" and self.dataset.folder.group_pattern is not None:
            problems.append("dataset.folder.group_pattern: must be null for dataset.kind synthetic")
        generated = f"data/{self.dataset.name}/raw"
        if self.dataset.kind == "synthetic" and posixpath.normpath(self.dataset.root.as_posix()) != generated:
            problems.append(
                f"dataset.root: must be {generated} for dataset.kind synthetic, not {shown(str(self.dataset.root))}; "
                "videos are generated there and nowhere else. For videos of yours set dataset.kind to folder"
            )
        if self.dataset.kind in ("ucf101", "hmdb51") and self.dataset.annotations is None:
            problems.append(f"dataset.annotations: is missing; {self.dataset.kind} needs the folder of its split files")
        if self.dataset.kind == "list" and self.dataset.annotations is not None:
            problems.append("dataset.annotations: must be null for dataset.kind list; splits are columns of the list")
        if self.dataset.kind == "list" and self.dataset.folder.group_pattern is not None:
            problems.append("dataset.folder.group_pattern: must be null for dataset.kind list; its column is group")
        if self.dataset.kind != "list" and self.dataset.base is not None:
            problems.append(f"dataset.base: must be null for dataset.kind {self.dataset.kind}; it is of lists")
        if self.dataset.kind == "folder" and self.dataset.folder.split_by == "list" and not self.dataset.annotations:
            problems.append("dataset.annotations: is missing, but dataset.folder.split_by is list")
        own = self.cubes.nets == self.dataset.name
        if own and self.finetune.splits != self.splits:
            problems.append("finetune.splits: must equal splits, because cubes.nets names this dataset's own nets")
        if not own and self.finetune.splits:
            problems.append(f"finetune.splits: must be [], because cubes.nets takes the nets of {self.cubes.nets}")
        if self.cubes.net != VGG16:
            problems += self._other_net()
        for group in SYSTEMS.values():
            if getattr(self, group).splits not in ((), self.splits):
                problems.append(f"{group}.splits: must equal splits, or be [] for none of its rows")
        if self.fisher.splits and not self.trajectories.source:
            problems.append("trajectories.source: must be [flow], because fisher.splits asks for their Fisher vectors")
        if self.tdd.splits and not self.fisher.splits:
            problems.append("fisher.splits: must equal splits, because tdd.splits asks for row tdd_idt")
        if self.tdd_cubes.splits and not self.trajectories.source:
            problems.append("trajectories.source: must be [flow], because tdd_cubes.splits asks to pool along them")
        if self.stacked.splits and not self.fisher.splits:
            problems.append("fisher.splits: must equal splits, because stacked.splits asks for row idt_sfv")
        if self.stacked.span > self.stacked.cells:
            problems.append("stacked.span: must be at most stacked.cells")
        if absent := [view for view in self.train.views if view not in self.cubes.views]:
            problems.append(f"train.views: {', '.join(absent)} must be among cubes.views, too")
        if self.evaluate.samplings == 3 and not {"shift1", "shift2"} <= set(self.cubes.views):
            problems.append("evaluate.samplings: 3 needs shift1 and shift2 among cubes.views")
        if not any(self.evaluate.fusion):
            problems.append("evaluate.fusion: one of the two weights must be more than 0")
        if self.run.executor == "dask" and not self.run.address:
            problems.append(f"run.scheduler: is missing, but run.executor is dask, and ${SCHEDULER} names none either")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _other_net(self) -> list[str]:
        """What must not be asked of a net other than VGG-16."""
        problems, net = [], self.cubes.net
        for stream in ("spatial", "temporal"):
            recipe: Recipe = getattr(self.finetune, stream)
            if self.finetune.splits and recipe.iterations:
                why = f"because cubes.net is {net} and only {VGG16} is fine-tuned"
                problems.append(f"finetune.{stream}.iterations: must be 0, {why}")
            if recipe.input == "caffe":
                why = f"because cubes.net is {net}; put mean and std into the metadata of its weights"
                problems.append(f"finetune.{stream}.input: must be auto or torchvision, {why}")
        if self.tdd.splits:
            problems.append(f"tdd.splits: must be [], because cubes.net is {net} and TDD pools layers of {VGG16}")
        if self.tdd_cubes.splits:
            problems.append(f"tdd_cubes.splits: must be [], because maps of cubes.net {net} may hold negative numbers")
        return problems


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a params file.

    Raises:
        ParamsError: the file is missing, is not a YAML mapping, or holds unknown, missing or impossible values; the
            message names them all.
    """
    path = Path(path)
    try:
        raw = read_plain_yaml(path)
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror}). Copy one from presets/.") from None
    except PlainYamlError as error:
        raise ParamsError(f"{path}: {error}") from None
    if not isinstance(raw, dict):
        raise ParamsError(f"{path}: must be a mapping of groups, e.g. `seed: 1`")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError.of(path, problems_of(error, raw, Params)) from None


params_option = click.option(
    "--params",
    "params_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help="The params file.",
)


SEED = click.IntRange(0, 2**32 - 1)
"""Type of the option ``--seed``."""


def synthetic_spec(params: Params) -> SyntheticSpec:
    """What the params ask for."""
    wanted = params.synthetic
    return SyntheticSpec(
        seed=params.seed,
        groups=wanted.groups,
        takes=wanted.clips_per_group,
        frames=wanted.frames,
        width=wanted.width,
        height=wanted.height,
        fps=wanted.fps,
        shake=wanted.shake,
    )
