"""``params.yaml`` as typed, frozen objects.

Every stage calls :func:`load_params` before it does anything else, and stage ``check`` before any other stage runs, so
that a wrong value is refused before any work, and every wrong value is named in one report. The classes below are the
only list of what may be set; each field is described once, here.
"""

import difflib
import os
import posixpath
import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

import click
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from han_core.camera.compensation import Compensation
from han_core.clips import unfit_name
from han_core.datasets.synthetic.generate import SyntheticSpec
from han_core.nets.views import FURTHER
from han_core.rows import ROWS, families, table_lines
from pipeline.plain_yaml import PlainYamlError, read_plain_yaml

Model = Literal[families("classify")]
Baseline = Literal[families("baselines")]
RowName = Literal[tuple(row.name for row in ROWS if row.stage and not row.ensemble_of)]
SYSTEMS = {
    "deep_lstm": "cnn_lstm",
    "fisher": "fisher",
    "stacked": "stacked",
    "tdd": "tdd",
    "tdd_cubes": "tdd_cubes",
    "slow_fusion": "slow_fusion",
}
"""Family of rows -> the group whose ``splits`` say whether it is made: those of ``splits``, or [] for none."""
TABLE_1: tuple[Model, ...] = tuple(rows[0].name for rows in table_lines(1).values())
Layer = Literal[
    "conv1_1", "conv1_2", "pool1", "conv2_1", "conv2_2", "pool2", "conv3_1", "conv3_2", "conv3_3", "pool3",
    "conv4_1", "conv4_2", "conv4_3", "pool4", "conv5_1", "conv5_2", "conv5_3", "pool5", "fc6", "fc7",
]  # fmt: skip
Channel = Literal["trajectory", "hog", "hof", "mbhx", "mbhy"]
PooledLayer = Literal[
    "conv3_1", "conv3_2", "conv3_3", "pool3", "conv4_1", "conv4_2", "conv4_3", "pool4", "conv5_1", "conv5_2", "conv5_3"
]
_LEARNT = (*(layer for layer in get_args(Layer) if not layer.startswith("pool")), "fc8")
Share = Annotated[float, Field(ge=0, lt=1)]

# Upper bounds are far beyond use; what is more would end as a lack of memory, hours into the work.
Split = Annotated[int, Field(ge=1, le=9999)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Frames = Annotated[int, Field(ge=1, le=10_000)]
Pixels = Annotated[int, Field(ge=1, le=16_384)]
Units = Annotated[int, Field(ge=1, le=16_384)]
Batch = Annotated[int, Field(ge=1, le=65_536)]
Processes = Annotated[int, Field(ge=0, le=1024)]
Count = Annotated[int, Field(ge=0, le=10**9)]
PositiveCount = Annotated[int, Field(ge=1, le=10**9)]

VGG16 = "vgg16"
"""The net that is fine-tuned here; ``cubes.net`` names others."""
_VGG16_MAPS = ("conv5_3", "pool4", "pool5")

NOTHING_CHOSEN = "none"
"""Value of ``train.chosen``. Not null: DVC, too, has to find a file of this name, ``choices/none.yaml``."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What would break a line or steer a terminal."""
_SHOWN_PROBLEMS = 40


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "is part of paths, so it must be of 1 to 100 letters A-Z, a-z, digits, - and _, not " + _shown(name)
        )
    return name


def _text(text: object) -> object:
    """Paths and names go to the operating system, which ends them at a NUL."""
    if isinstance(text, str) and not text:
        raise ValueError("is empty")
    if isinstance(text, str) and "\0" in text:
        raise ValueError(f"holds a NUL character: {_shown(text)}")
    return text


def _local(path: object) -> object:
    if isinstance(path, str) and "://" in path:
        raise ValueError(f"must be a path on this machine, not {_shown(path)}")
    return path


def _home(path: Path) -> Path:
    """``~`` is expanded, as shells do; variables are not, so that a params file means the same in every shell."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"there is no home folder {_shown(path.parts[0])}") from None


def _written_out(path: Path) -> Path:
    if path.parts[:1] and path.parts[0].startswith("~"):
        raise ValueError(f"must be written out, because DVC watches it and knows no ~: {_home(path)}")
    return path


def _clip(name: str) -> str:
    parts = name.split("/")
    if len(parts) > 2 or any(unfit_name(part) for part in parts):
        raise ValueError(f"must be the name of a clip or <class>/<name>, not {_shown(name)}")
    return name


def _pattern(pattern: str) -> str:
    if len(pattern) > 1000:
        raise ValueError("is longer than 1000 characters")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}; it is {_shown(pattern)}") from None
    return pattern


def _architecture(name: str) -> str:
    """Whether torchvision has it is found out by the stages: importing torchvision takes seconds."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,99}", name):
        raise ValueError(f"must be {VGG16} or the name of a classification model of torchvision, not {_shown(name)}")
    return name


def _module(name: str) -> str:
    if len(name) > 200 or not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", name):
        raise ValueError(f"must be the name of a layer, or of a module as layer4.2.conv3, not {_shown(name)}")
    return name


def _compensation(name: str) -> str:
    Compensation.of(name)
    return name


def _each_once(values: tuple) -> tuple:
    if len(set(values)) < len(values):
        raise ValueError("holds a value twice")
    return values


def _no_boolean(value: object) -> object:
    """Python takes true for 1 among the values of a Literal."""
    if isinstance(value, bool):
        raise ValueError(f"must not be {str(value).lower()}")
    return value


Name = Annotated[str, AfterValidator(_name)]
"""One component of paths inside the project."""
Text = Annotated[str, BeforeValidator(_text)]
_Path = Annotated[Path, Field(strict=False), BeforeValidator(_local), BeforeValidator(_text)]
UserPath = Annotated[_Path, AfterValidator(_home)]
"""Wherever people keep their data."""
Weights = Annotated[Text, AfterValidator(lambda text: str(_home(Path(text))) if text.startswith("~") else text)]
"""A word, or the path of a file."""


class ParamsError(click.ClickException):
    """Raised with every problem of a params file, one per line; click prints it without a traceback."""

    @classmethod
    def of(cls, path: Path, problems: Sequence[str]) -> "ParamsError":
        """The report of a file that can be read and must not be used."""
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        shown = [_CONTROL.sub(lambda found: ascii(found[0])[1:-1], line) for line in problems[:_SHOWN_PROBLEMS]]
        if len(problems) > len(shown):
            shown.append(f"... and {len(problems) - len(shown)} more")
        return cls(f"{path}: {count}\n  " + "\n  ".join(shown))


class Group(BaseModel):
    """Base of all groups: unknown keys are refused, values cannot be changed after loading. Nothing is converted: text
    is not a number, 1.5 and true are not whole numbers; a whole number is a number, too."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Folder(Group):
    """How groups and splits of a class-folder dataset come about (``dataset.kind: folder`` or ``synthetic``), and
    splits of a list without a column ``split`` (``list``)."""

    group_pattern: Annotated[Text, AfterValidator(_pattern)] | None = None
    """Regular expression searched in a clip's file stem; its first group (or the whole match) is the clip's
    group, e.g. the person filmed. Without one every clip is a group of its own. The synthetic names bring theirs."""
    split_by: Literal["list", "fold", "fraction"] = "fraction"
    """``list``: trainlistNN.txt/testlistNN.txt in ``dataset.annotations``; ``fold``: groups dealt into ``folds``
    folds, fold i is the test set of split i; ``fraction``: ``test_share`` of the groups, drawn again for each split."""
    folds: Annotated[int, Field(ge=2, le=9999)] = 5
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.3


class Dataset(Group):
    """Where clips come from."""

    name: Name
    """Part of every path, so that several datasets live side by side."""
    kind: Literal["synthetic", "folder", "list", "ucf101", "hmdb51", "ut_interaction"]
    root: Annotated[_Path, AfterValidator(_written_out)]
    """Folder of the videos, or with ``kind: list`` the CSV that names them; DVC watches it. Generated videos lie in
    ``data/<name>/raw`` and nowhere else: DVC removes a stage's outputs before it runs, and must never remove videos of
    yours."""
    base: UserPath | None = None
    """Folder that the paths of a list start from and all its videos lie in (``kind: list``, ``docs/datasets.md``); null
    is the folder of the list."""
    generate: tuple[Literal["synthetic"], ...] = ()
    """``[synthetic]`` makes DVC generate the videos first."""
    annotations: UserPath | None = None
    """Folder of the split files (ucf101, hmdb51, folder with ``split_by: list``)."""
    validation_share: Share = 0.0
    """Share of the training GROUPS held out as a validation set."""
    allowed_failures: Count = 0
    """How many clips may fail in a stage before the stage itself fails."""
    folder: Folder = Folder()

    @property
    def videos(self) -> Path:
        """Folder that the paths in clips.csv are relative to."""
        return self.root if self.kind != "list" else self.base or self.root.parent


class Synthetic(Group):
    """The generated dataset; see ``han_core/datasets/synthetic/generate.py``."""

    groups: Annotated[int, Field(ge=2, le=10_000)] = 12
    """Background, figure, place and camera of a clip; whole groups are train or test (``dataset.folder``)."""
    clips_per_group: Annotated[int, Field(ge=1, le=1000)] = 1
    """Clips of each class in each group; each has distractors, jitter and phase of its own."""
    frames: Annotated[int, Field(ge=12, le=10_000)] = 36
    width: Annotated[int, Field(ge=64, le=4096)] = 160
    height: Annotated[int, Field(ge=64, le=4096)] = 120
    fps: Annotated[float, Field(ge=1, le=1000)] = 25.0
    shake: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Root mean square, in pixels along x and along y, of the motion of a hand that holds the camera."""


SCHEDULER = "DASK_SCHEDULER_ADDRESS"
"""Environment variable that dask reads, too."""


class Run(Group):
    """How the work is spread. Never changes a result, so no stage depends on it."""

    workers: Processes = 0
    """Clips in work at once: worker processes of a map over clips; 0 is one per core. On GPUs, flow has so many
    processes in all, by default three a GPU: while one computes, another reads and a third writes; fewer leave the GPU
    idle while a clip is read, more need memory for a context each. Stages that run a net (cubes, scores) have as many
    clips in work as this says, by default as many as cores (at most sixteen a GPU), and for each four of them a process
    a GPU (at most four). GPUs in exclusive compute mode let one process in, and a stage says so."""
    executor: Literal["local", "dask"] = "local"
    """``dask`` maps over clips on the workers of a cluster (docs/cluster.md), as many at once as these have threads."""
    scheduler: Text | None = None
    """Address of the dask scheduler (``executor: dask``); null takes ``$DASK_SCHEDULER_ADDRESS``, as dask does."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    verify: Literal["size", "content"] = "size"
    """Before a cached file is reused: ``size`` compares its identity and length, ``content`` its checksum as well,
    which reads the whole file."""
    store: Literal["auto", "stream", "memory", "device"] = "auto"
    """Cubes while HAN trains: ``stream`` reads them batch by batch, ``memory`` holds all in sparse form, ``device``
    holds them so on the GPU, ``auto`` goes by size."""
    processes: Processes = 1
    """Processes that fine-tune a net, or train HAN, together; 0 is one per GPU. No more than there are GPUs, unless
    they train on the CPU."""
    checkpoint_seconds: Annotated[float, Field(ge=0, le=10**9)] = 60.0
    """Least time between two checkpoints of a training run, which resumes from the last one if it is killed."""

    @property
    def address(self) -> str:
        """Of the dask scheduler; "" where nothing names it."""
        return self.scheduler or os.environ.get(SCHEDULER, "")


class Decode(Group):
    short_side: Annotated[int, Field(ge=32, le=16_384)] | None = None
    """Frames whose shorter side is longer than this are shrunk to it; null keeps the size of the video."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG quality; below 95 is known to cost accuracy."""
    damaged_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of a video's pictures that may be damaged (not decodable, missing, or with errors that the decoder reports)
    while its frames are kept and the damage is counted. A video with more fails; 0 refuses any damage, 1 keeps all."""
    time_limit: Annotated[float, Field(gt=0, le=10**9)] = 3600.0
    """Seconds that the decoding of one video may take; never changes a result."""


class TVL1(Group):
    """TV-L1 under OpenCV's names, OpenCV-CUDA's defaults."""

    tau: PositiveFloat = 0.25
    lambda_: Annotated[float, Field(gt=0, alias="lambda")] = 0.15
    theta: PositiveFloat = 0.3
    scales: Annotated[int, Field(ge=1, le=100)] = 5
    scale_step: Annotated[float, Field(gt=0, lt=1)] = 0.8
    warps: Annotated[int, Field(ge=1, le=10_000)] = 5
    epsilon: PositiveFloat = 0.01
    iterations: Annotated[int, Field(ge=1, le=10**6)] = 300
    median: Annotated[Literal[1, 3, 5], BeforeValidator(_no_boolean)] = 1
    """Side of the median filter between iterations; 1 is none."""
    settle: Annotated[int, Field(ge=0, le=10**6)] = 10
    """Further iterations when the last warp on the finest level has met the stopping rule; OpenCV has none."""


class Flow(Group):
    backend: Literal["auto", "reference", "cpu", "cuda", "opencv"] = "auto"
    size: tuple[Pixels, Pixels] | None = None
    """Width and height at which flow is computed and stored, in pixels of that size; null is the frames' own."""
    bound: PositiveFloat = 20.0
    """Pixels mapped to the ends of the 0..255 scale; larger motion is clipped."""
    rounding: Literal["nearest", "floor"] = "nearest"
    codec: Literal["jpeg", "png"] = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    batch: Literal["auto"] | Batch = "auto"
    """Pairs of frames of a clip in memory at once; never changes a result. ``auto`` is 16, and on a GPU as many as keep
    it busy, fewer of larger frames (``pairs_at_once`` in ``han_core/flow/tvl1/solver.py``). How many of them a GPU
    solves at once is its own matter."""
    tvl1: TVL1 = TVL1()


class Recipe(Group):
    """How one VGG-16 is fine-tuned; PAPER: SGD with momentum on randomly chosen frames or flow stacks."""

    weights: Weights = "imagenet"
    """``imagenet`` (torchvision's download), ``random``, or the path of a safetensors file."""
    input: Literal["auto", "caffe", "torchvision"] = "auto"
    """Scale of the input that the weights expect; ``auto`` reads it from the file (see ``han_core/nets/vgg16.py``)."""
    fc_size: Units = 4096
    """Units of fc6 and fc7."""
    iterations: Count = 0
    """SGD steps; 0 uses the initial net without training it."""
    batch: Batch = 256
    """Effective batch of one step."""
    micro_batch: Batch = 32
    """Images in memory at once; gradients are accumulated until the effective batch is reached."""
    learning_rate: PositiveFloat = 0.001
    steps: tuple[PositiveCount, ...] = ()
    """Iterations at which the learning rate is multiplied by ``gamma``."""
    gamma: PositiveFloat = 0.1
    rates: dict[str, PositiveFloat] = {}
    """Learning rates of single layers as multiples of ``learning_rate``, by the start of their names, of which the
    longest counts: ``{conv: 0.1, conv5_3: 1}``. Layers that are not named have 1."""
    bias_rate: PositiveFloat = 2.0
    """Learning rate of a layer's biases as a multiple of its weights'."""
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0005
    bias_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of biases as a multiple of the weights'."""
    dropout: tuple[Share, Share] = (0.5, 0.5)
    """Dropout after fc6 and fc7."""
    warmup: Count = 0
    """Iterations over which the learning rate rises linearly, the last of them being the first at the full rate."""
    clip_gradient: Annotated[float, Field(ge=0)] = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    frozen: Layer | None = None
    """Name of the last layer that is not trained, e.g. ``conv4_3``; null trains all."""
    precision: Literal["float32", "tf32", "bfloat16", "float16", "auto"] = "float32"
    """Arithmetic of the layers (weights and their updates stay float32). ``float32`` is IEEE's on GPUs as well;
    ``tf32`` is what GPUs from Ampere on make of it in their tensor cores (10 bits of each factor), and float32
    elsewhere. ``float16`` scales the loss so that small gradients survive, ``auto`` takes bfloat16 where torch says
    that the device has it, float32 elsewhere."""
    validate_every: Count = 500
    """Iterations between two looks at the validation clips, where ``dataset.validation_share`` holds some out: a
    column of the curve, by which nothing is chosen. 0 never looks."""
    scales: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (1.0, 0.875, 0.75, 0.66)
    """Scale jitter: crop sides as shares of the shorter side, one drawn for the width and one for the height."""
    max_distort: Count | None = None
    """How many places apart in ``scales`` width and height may be; null draws them independently."""
    corner_crops: bool = True
    """Crops at the four corners and the centre; false takes the whole frame."""
    flip: bool = True
    """Horizontal flips; the x component of flow is negated."""

    @field_validator("rates")
    @classmethod
    def _of_layers(cls, rates: dict[str, float]) -> dict[str, float]:
        unknown = [start for start in rates if not any(layer.startswith(start) for layer in _LEARNT)]
        if unknown:
            names = ", ".join(_printable(start) for start in unknown[:10])
            raise ValueError(f"no layer's name starts with {names}; layers are {', '.join(_LEARNT)}")
        return rates


class Finetune(Group):
    splits: tuple[Split, ...] = ()
    """Splits whose nets are made here: all of ``splits``, or none when ``cubes.nets`` names another dataset's nets."""
    spatial: Recipe = Recipe()
    temporal: Recipe = Recipe()


class Cubes(Group):
    views: tuple[Literal[FURTHER], ...] = ()
    """Further views of each clip that cubes are made of, for ``train.views`` and ``evaluate.samplings``: the frames
    ``mirrored`` left to right (the x component of flow negated), taken a third (``shift1``) or two thirds (``shift2``)
    of their distance later, filmed by a hand that shakes by one (``shaken1``) or two (``shaken2``) per cent of the
    shorter side, or several of these, e.g. ``mirrored-shaken1``. Each takes the time and the disk of the plain view
    of the training clips."""
    nets: Name
    """Name of the dataset whose nets are used; HMDB-51 uses those of UCF-101, as the paper does."""
    frames: Frames = 25
    """T: frames per clip, equally spaced in time."""
    net: Annotated[str, AfterValidator(_architecture)] = VGG16
    """``vgg16``, which is fine-tuned here, or another classification model of torchvision, e.g. ``resnet50``, which is
    used with the weights that it comes with (``docs/cubes.md``, Other nets). Both streams have the same."""
    layer: Annotated[str, AfterValidator(_module)] = "conv5_3"
    """Whose output is the cube. Of ``vgg16``: conv5_3, pool4 or pool5; of another net the name of a module that gives
    maps, as torchvision has it, e.g. ``layer4``."""
    fc: Literal["fc6", "fc7"] = "fc7"
    """The fully connected layer of Table 1's third row. With another net than ``vgg16`` either name stands for the
    input of the net's last linear layer."""
    batch: Batch = 25
    """Images a forward pass; never of two clips, so that a clip's cube does not depend on its neighbours."""
    precision: Literal["float32", "tf32", "bfloat16", "float16", "auto"] = "float32"
    """Arithmetic of the net. ``float32`` is IEEE's on GPUs as well; ``tf32`` is what GPUs from Ampere on make of it in
    their tensor cores, and float32 elsewhere. ``bfloat16`` differs by about 1.5 % from float32 and is twice as fast on
    processors that have it; ``auto`` takes it where torch says that the device has it, float32 elsewhere. Cubes of any
    but ``float32`` that were made on a GPU are made anew on a CPU, and the other way round."""

    shard: Annotated[int, Field(ge=0, le=10_000)] = 0
    """About so many clips of a class share one HDF5 file, for stores whose number of files is what costs
    (``docs/scale.md``); 0: one file a clip. Never changes what is in a cube."""

    @field_validator("layer")
    @classmethod
    def _of_the_net(cls, layer: str, info: ValidationInfo) -> str:
        if info.data.get("net") == VGG16 and layer not in _VGG16_MAPS:
            raise ValueError(f"must be {', '.join(_VGG16_MAPS)} where cubes.net is {VGG16}, not {_shown(layer)}")
        return layer


class Scores(Group):
    """The fine-tuned nets' own answers, by the test protocol of the two-stream ConvNets [16]."""

    enabled: bool = True
    """false leaves out the rows ``spatial_net``, ``temporal_net``, ``two_stream`` and ``two_stream_svm``."""
    frames: Frames = 25
    """Frames a clip, equally spaced in time."""
    crops: Annotated[Literal["whole", 1, 5, 10], BeforeValidator(_no_boolean)] = 10
    """Of each frame: all of it, squeezed into a square, which suits nets trained with ``corner_crops: false``; the
    centre; the corners too; all of them mirrored too."""
    batch: Batch = 25
    """Crops a forward pass; never of two clips."""
    precision: Literal["float32", "tf32", "bfloat16", "float16", "auto"] = "float32"
    """Arithmetic of the net, as ``cubes.precision``."""


class Optimizer(Group):
    name: Literal["adadelta", "adam", "sgd"] = "adadelta"
    learning_rate: PositiveFloat = 1.0
    rho: Share = 0.95
    eps: PositiveFloat = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class Train(Group):
    """HAN, eq. 2 to 6 of the paper."""

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (1,)
    """One model a seed, of each variant and split: initial weights, order of the clips and dropout. Figures are means
    over them, shown with their spread. Another seed trains that one only."""
    lstm_size: Units = 1024
    """D', units of each LSTM layer."""
    layers: Annotated[int, Field(ge=1, le=100)] = 2
    """L, LSTM layers per stream."""
    skip: Frames = 5
    """k: a layer reads every k-th state of the layer below."""
    dropout: Share = 0.5
    attention: Literal["location", "content"] = "location"
    """``location`` is eq. 3; ``content`` also looks at the region's feature, as the code of [15] does."""
    attention_rate: Annotated[float, Field(ge=0, le=10**6)] = 1.0
    """Learning rate of the weights W of eq. 3 (with content: of all that scores) as a multiple of the others'; 0 keeps
    them as they were drawn."""
    attention_deviation: Annotated[float, Field(gt=0, le=1000)] | None = None
    """W of eq. 3 starts from a normal distribution of this standard deviation; null: torch's default, uniform within
    1 / sqrt(units of all streams). Of ``location``, so not of row ``soft_attention_lstm``."""
    region_dropout: Share = 0.0
    """Share of a frame's regions, drawn again for each clip, frame and batch, that attention may not look at during
    training; never all. The map sums to one over the others. Nothing where there is one region: fully connected
    features, and rows without attention, whose cubes are averaged over all regions while they are read."""
    stream_dropout: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of clips, drawn again in each batch, one of whose two streams is silent during training: its LSTM reads
    zeros, the mean glimpse where ``standardize`` is set. So no stream is learnt by heart and the other neglected."""
    views: tuple[Literal[FURTHER], ...] = ()
    """Those of ``cubes.views`` to learn from beside the plain one: one of them is drawn for each clip and epoch."""
    shift: Annotated[int, Field(ge=0, le=6)] = 0
    """Crops of the cubes: each clip's are moved by up to this many regions along each side, drawn each epoch, and
    filled up with zeros. Nothing where there is one region, as ``region_dropout``."""
    initial_state: Literal["zeros", "mean"] = "zeros"
    forget_bias: Literal["span"] | float = "span"
    """Initial bias of the LSTMs' forget gates; ``span`` lets every layer remember its whole sequence at the start."""
    standardize: bool = True
    """Subtract mean and divide by standard deviation of each channel over the training clips."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Arithmetic of the products with weight matrices; ``auto`` is bfloat16 where the device multiplies it."""
    batch: Batch = 128
    """Clips of a step, whatever the number of processes."""
    epochs: Annotated[int, Field(ge=1, le=10**6)] = 100
    clip_gradient: Annotated[float, Field(ge=0)] = 0.0
    optimizer: Optimizer = Optimizer()
    start: UserPath | None = None
    """Path of a HAN trained on other data, whose weights training starts from, all but the classifier's; ``{model}`` in
    it stands for the variant: ``models/ucf101/han/{model}-1-seed1.safetensors``."""
    chosen: Name = NOTHING_CHOSEN
    """``none``, or the name of a file ``choices/<name>.yaml`` that ``python -m pipeline.select`` wrote: settings chosen
    inside the training groups of each split, which stand in place of those here."""

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        return _each_once(seeds)

    @model_validator(mode="after")
    def _of_the_attention(self) -> "Train":
        if self.attention_deviation is not None and self.attention != "location":
            raise ValueError(f"attention_deviation is of attention: location, but attention is {self.attention}")
        return self


def start_of(settings: Train, model: str) -> Path:
    """The file of the HAN that a variant starts from; ``settings.start`` is given."""
    return Path(str(settings.start).replace("{model}", model))


class CnnLstm(Group):
    """Two-stream CNN + LSTM [22]: a deep LSTM a stream that names the class at every frame."""

    splits: tuple[Split, ...] = ()
    """As ``splits``; ``[]`` leaves out the rows ``deep_lstm``, ``deep_lstm_spatial`` and ``deep_lstm_temporal``."""
    features: Literal["fc", "cubes"] = "fc"
    """``fc``: the fully connected layer ``cubes.fc``; ``cubes``: the cubes averaged over their regions."""
    units: Units = 512
    """Of each LSTM layer."""
    layers: Annotated[int, Field(ge=1, le=100)] = 5
    dropout: Share = 0.5
    """Between the layers."""
    forget_bias: Literal["span"] | float = 0.0
    """As ``train.forget_bias``. With five layers a gate that is open from the start costs accuracy: an order task of
    toy sequences is learnt to 92 % with a bias of 0, to 70 % with 1, to 41 % with ``span``."""
    standardize: bool = True
    """As ``train.standardize``."""
    batch: Batch = 128
    """Clips of a step, whatever the number of processes."""
    epochs: Annotated[int, Field(ge=1, le=10**6)] = 30
    clip_gradient: Annotated[float, Field(ge=0)] = 0.0
    """Largest norm of the gradient of a stream's LSTM; 0 does not clip."""
    optimizer: Optimizer = Optimizer()


class Trajectories(Group):
    """Improved dense trajectories [19], along the stored flow."""

    source: tuple[Literal["flow"], ...] = ()
    """``[flow]``; ``[]`` makes none, for params that ask for no row that needs them."""
    length: Annotated[int, Field(ge=3, le=240, multiple_of=3)] = 15
    """Steps of a trajectory, a multiple of the three parts in which it is described."""
    stride: Annotated[int, Field(ge=1, le=1024)] = 5
    """Pixels between points that are tracked, at every scale."""
    patch: Annotated[int, Field(ge=4, le=1024, multiple_of=2)] = 32
    """Side of the patch around a point that is described, in pixels of its scale."""
    scales: Annotated[int, Field(ge=1, le=16)] = 8
    """At most this many, each smaller by the root of 2, while the shorter side has 32 pixels."""
    quality: Annotated[float, Field(gt=0, lt=1)] = 0.001
    """Points whose neighbourhood has less texture than this share of the frame's best are not tracked."""
    camera: Literal["grid", "corners", "none"] = "grid"
    """What the camera's motion, a homography, is fitted to: the flow on a grid of every 8 pixels, or at corners;
    ``none`` leaves the motion in."""
    median: Annotated[Literal[1, 3, 5], BeforeValidator(_no_boolean)] = 5
    """Side of the flow's median filter; 1 is none. Stored flow needs one: MBH differentiates it."""
    most: Count = 5000
    """At most this many of a clip are kept, drawn at random; 0 keeps all (about 13 MB a clip of UCF-101)."""


class Stacked(Group):
    """Stacked Fisher vectors [13]. How large subvolumes are, how they move and how long their compressed vectors are
    could not be verified: those values are choices of this project."""

    splits: tuple[Split, ...] = ()
    """As ``splits``; ``[]`` leaves out the rows ``sfv`` and ``idt_sfv``."""
    samples: Annotated[int, Field(ge=1, le=10**8)] = 256_000
    """Descriptors of training clips that the first layer is fitted to."""
    cells: Annotated[int, Field(ge=1, le=64)] = 4
    """Blocks across a frame, and down it; a subvolume moves by one. (A choice.)"""
    span: Annotated[int, Field(ge=1, le=64)] = 2
    """Blocks across a subvolume, and down it. (A choice.)"""
    frames: Annotated[
        tuple[Annotated[int, Field(ge=2, le=10_000, multiple_of=2)], ...], Field(min_length=1, max_length=16)
    ] = (30, 60)
    """Lengths of subvolumes, which move by half of theirs. (A choice.)"""
    least: PositiveCount = 30
    """Trajectories in a subvolume. (A choice.)"""
    local_dimensions: Annotated[int, Field(ge=1, le=396)] = 200
    """Of HOG, HOF and MBH side by side, after whitening."""
    gaussians: Annotated[int, Field(ge=1, le=16_384)] = 256
    """Of the first layer."""
    reduced: Annotated[int, Field(ge=1, le=16_384)] = 200
    """Numbers of a subvolume's compressed vector, at most. (A choice.)"""
    second_gaussians: Annotated[int, Field(ge=1, le=16_384)] = 256
    """Of the second layer, at most."""
    clips_per_dimension: PositiveCount = 4
    """Training clips for each number of ``reduced``, at least: of fewer clips vectors are compressed to fewer numbers.
    More would tell the training clips from each other, and nothing of other clips. (A choice.)"""
    clips_per_gaussian: PositiveCount = 32
    """Training clips for each of ``second_gaussians``, at least, for the same reason. (A choice.)"""
    floor: Annotated[float, Field(gt=0, le=1)] = 1e-4
    """Smallest variance that the second layer divides by, in parts of the largest: 1 for a few clips. (A choice.)"""
    reduction: Literal["max_margin", "pca"] = "max_margin"
    """How subvolumes' vectors are compressed; ``pca`` is the control, which sees no labels."""
    penalties: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (1e-4,)
    """lambda and mu of the max-margin compression; of several the one that does best on held-out training groups."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the training groups that choose among several ``penalties``."""
    subvolumes: PositiveCount = 30_000
    """Of all training clips, the same number of each, that compression and second layer are fitted to: four a clip of
    UCF-101, all of those of a few clips. (A choice.) While they are fitted, each takes 0.2 MB of disk."""
    epochs: Annotated[int, Field(ge=1, le=65_536)] = 5
    """Of the max-margin compression."""
    batch: Batch = 256
    rate: PositiveFloat = 1.0
    """Factor of the max-margin compression's step sizes. (A choice.)"""
    iterations: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Of EM, at most, in both layers."""


class Fisher(Group):
    """Fisher vectors of the trajectories' descriptors [19]."""

    splits: tuple[Split, ...] = ()
    """As ``splits``; ``[]`` leaves out the rows ``hog``, ``hof``, ``mbh`` and ``idt``."""
    channels: Annotated[tuple[Channel, ...], Field(min_length=1)] = get_args(Channel)
    """Of row ``idt``; a row whose channel is not among them is left out."""
    gaussians: Annotated[int, Field(ge=1, le=16_384)] = 256
    """K, of the mixture of each channel."""
    samples: Annotated[int, Field(ge=1, le=10**8)] = 256_000
    """Descriptors of training clips that projections and mixtures are fitted to."""
    iterations: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Of EM, at most."""


class PooledLayers(Group):
    """Layers of each stream's net whose maps are pooled along trajectories."""

    spatial: Annotated[tuple[PooledLayer, ...], Field(min_length=1)] = ("conv4_3", "conv5_3")
    temporal: Annotated[tuple[PooledLayer, ...], Field(min_length=1)] = ("conv4_3", "conv5_3")

    @field_validator("spatial", "temporal")
    @classmethod
    def _once(cls, layers: tuple[str, ...]) -> tuple[str, ...]:
        return _each_once(layers)


class TDD(Group):
    """Trajectory-pooled deep-convolutional descriptors [20], with the nets of ``cubes.nets``."""

    splits: tuple[Split, ...] = ()
    """As ``splits``; ``[]`` leaves out the rows ``tdd`` and ``tdd_idt``."""
    layers: PooledLayers = PooledLayers()
    sizes: Annotated[tuple[Annotated[float, Field(gt=0, le=4)], ...], Field(min_length=1)] = (1.0,)
    """Sizes of the net's input by that of its images, their sides rounded to multiples of 16; the Fisher vectors of
    several are added. The original has [2, 1.41, 1, 0.71, 0.5], which cost 7.75 times as much as [1]."""
    step: Annotated[int, Field(ge=1, le=1000)] = 1
    """The net looks at one frame in this many; points of frames between use the nearest one's maps. The original: 1."""
    codebook_clips: PositiveCount = 1000
    """Training clips, drawn at random, that the codebooks' samples come from: the net runs over them once more."""
    samples: Annotated[int, Field(ge=1, le=10**8)] = 256_000
    """Descriptors that projections and mixtures are fitted to."""
    dimensions: Annotated[int, Field(ge=1, le=256)] = 64
    """Of a descriptor after the whitened projection."""
    gaussians: Annotated[int, Field(ge=1, le=16_384)] = 256
    """K, of the mixture of each layer and normalisation."""
    iterations: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Of EM, at most."""
    batch: Batch = 8
    """Frames a forward pass; never of two clips."""
    precision: Literal["float32", "tf32", "bfloat16", "float16", "auto"] = "float32"
    """Arithmetic of the net, as ``cubes.precision``. Maps are summed in float32."""

    @field_validator("sizes")
    @classmethod
    def _once(cls, sizes: tuple[float, ...]) -> tuple[float, ...]:
        return _each_once(sizes)


class TDDCubes(Group):
    """The cheap variant of [20]: the cubes pooled along trajectories. Not the paper's method."""

    splits: tuple[Split, ...] = ()
    """As ``splits``; ``[]`` leaves out the row ``tdd_cubes``."""
    samples: Annotated[int, Field(ge=1, le=10**8)] = 256_000
    """As ``tdd.samples``, of all training clips."""
    dimensions: Annotated[int, Field(ge=1, le=256)] = 64
    gaussians: Annotated[int, Field(ge=1, le=16_384)] = 256
    iterations: Annotated[int, Field(ge=1, le=10_000)] = 100


class SVM(Group):
    """Linear SVMs, one class against the rest, of all rows that are made of Fisher vectors."""

    c: PositiveFloat = 100.0


class SlowFusionRecipe(Group):
    """How Slow Fusion is trained; [10]'s values are the defaults."""

    weights: Weights = "random"
    """``random``, or the path of a safetensors file of pre-trained weights."""
    trained: Literal["all", "top", "top3"] = "all"
    """``top``: fc8 alone; ``top3``: fc6 to fc8. The other layers keep the weights of the file."""
    fc_size: Units = 4096
    """Units of fc6 and fc7."""
    resize: Annotated[int, Field(ge=170, le=16_384)] = 200
    """Side, in pixels, to which a frame's centre square is resized before 170x170 are taken out of it."""
    flip: bool = True
    """Mirror half of the training clips; at test, average over windows and their mirror images."""
    iterations: Count = 0
    """SGD steps; 0 uses the initial net without training it."""
    batch: Batch = 32
    """Clips of one step."""
    micro_batch: Batch = 32
    """Clips in memory at once; gradients are accumulated until the batch is reached."""
    learning_rate: PositiveFloat = 0.001
    steps: tuple[PositiveCount, ...] = ()
    """Iterations at which the learning rate is multiplied by ``gamma``; [10] lowered it by hand."""
    gamma: PositiveFloat = 0.1
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 0.0005
    dropout: tuple[Share, Share] = (0.9, 0.9)
    """Dropout after fc6 and fc7."""
    warmup: Count = 0
    """Iterations over which the learning rate rises linearly."""
    clip_gradient: Annotated[float, Field(ge=0)] = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    precision: Literal["float32", "tf32", "bfloat16", "float16", "auto"] = "float32"
    """Arithmetic of the layers, as ``precision`` of ``finetune``."""
    validate_every: Count = 500
    """As ``validate_every`` of ``finetune``: the middle window of each validation clip."""

    @model_validator(mode="after")
    def _whole(self) -> "SlowFusionRecipe":
        if self.weights == "random" and self.trained != "all":
            raise ValueError(f"trained: {self.trained} would leave random layers untrained, because weights is random")
        return self


class SlowFusionScores(Group):
    windows: Frames = 50
    """Windows of ten frames a clip, equally spaced in time."""
    batch: Batch = 10
    """Windows a forward pass; never of two clips."""
    precision: Literal["float32", "tf32", "bfloat16", "float16", "auto"] = "float32"
    """Arithmetic of the net, as ``cubes.precision``."""


class SlowFusion(Group):
    """The spatio-temporal CNN [10], on windows of ten frames."""

    splits: tuple[Split, ...] = ()
    """As ``splits``; ``[]`` leaves out the row ``slow_fusion``."""
    train: SlowFusionRecipe = SlowFusionRecipe()
    scores: SlowFusionScores = SlowFusionScores()


class Evaluate(Group):
    baselines: tuple[Baseline, ...] = ()
    """``linear``: logistic regression on cubes averaged over regions, frames side by side; ``linear_mean``: averaged
    over the frames too; ``frame_size``: on width, height and ratio of the frames alone."""

    fusion: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (1.0, 1.0)
    """Weights of the spatial and the temporal stream's scores in ``two_stream`` and ``deep_lstm``; [16] takes the plain
    mean."""

    ensemble: bool = False
    """Beside each row of HAN with several ``train.seeds`` a row ``<row>_ensemble``: the mean of their probabilities."""
    samplings: Annotated[Literal[1, 3], BeforeValidator(_no_boolean)] = 1
    """Of the T frames by which HAN classifies a clip: 3 gives the mean of the probabilities of the plain view and of
    ``shift1`` and ``shift2``, which ``cubes.views`` must have."""


class Report(Group):
    clips: Annotated[int, Field(ge=0, le=10_000)] | tuple[Annotated[Text, AfterValidator(_clip)], ...] = 4
    """Test clips whose attention maps are drawn: how many, or their names."""
    megabytes: Annotated[float, Field(gt=0, le=1000)] = 10
    """What ``report.html`` may weigh, about. Predictions and playing clips take what tables and charts leave of it;
    where that is too little, clips are smaller, then fewer, and the page says so."""
    tuned: tuple[RowName, ...] = ()
    """Rows whose settings in this file were picked by looking at the clips they are scored on; the tables say so."""
    costs: bool = False
    """A table of what each row took to compute and to store, from the logs of the stages that were run here. With it
    the report's bytes are not the same from run to run."""

    @field_validator("tuned")
    @classmethod
    def _once(cls, tuned: tuple[str, ...]) -> tuple[str, ...]:
        return _each_once(tuned)


class Params(Group):
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
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
                f"dataset.root: must be {generated} for dataset.kind synthetic, not {_shown(str(self.dataset.root))}; "
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
        raise ParamsError.of(path, problems_of(error, raw)) from None


def problems_of(error: ValidationError, raw: dict, group: type[Group] = Params) -> tuple[str, ...]:
    """What is wrong with a file, each problem as a plain line that starts with the dotted key.

    Args:
        raw: the file's content, out of which ``group`` could not be made.
    """
    return tuple(dict.fromkeys(line for item in error.errors() for line in _describe(item, raw, group)))


def _describe(item: dict, raw: dict, group: type[Group]) -> list[str]:
    """One pydantic error as plain lines."""
    location = _keys(item["loc"], raw)
    key = ".".join(map(_printable, location))
    if not key and item["type"] == "value_error":
        return str(item["ctx"]["error"]).splitlines()
    if item["type"] == "extra_forbidden":
        known = _known_keys(item["loc"][:-1], group)
        close = difflib.get_close_matches(_printable(item["loc"][-1]), known, n=1)
        return [f"{key}: unknown key" + (f"; did you mean {close[0]}?" if close else "; known: " + ", ".join(known))]
    if item["type"] == "missing":
        return [f"{key}: is missing"]
    if item["type"] == "value_error":
        return [f"{key}: {item['ctx']['error']}"]
    if item["type"] == "too_short":
        return [] if item["input"] else [f"{key}: is empty"]  # else its values are named for what they are
    if item["type"] == "model_type":
        return [f"{key}: must be a group of keys, not {_shown(item['input'])}"]
    words = item["msg"].replace("valid tuple", "valid list")
    return [f"{key}: {words[0].lower()}{words[1:]}, not {_shown(item['input'])}"]


def _keys(location: tuple, raw: object) -> list[str | int]:
    """The parts of a location that stand in the file; pydantic also names the kinds that a value may be of."""
    keys = []
    for part in location[:-1]:
        if part in raw if isinstance(raw, dict) else isinstance(raw, tuple) and isinstance(part, int):
            keys.append(part)
            raw = raw[part]
    last = location[-1:]
    if isinstance(raw, dict) or (isinstance(raw, tuple) and last and isinstance(last[0], int)):
        keys += last
    return keys


def _printable(part: object) -> str:
    """A key as it may be printed: short, without what would move a terminal's cursor."""
    text = str(part)[:80]
    return text if text.isprintable() else ascii(text)[1:-1]


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 60, 60


def _shown(value: object) -> str:
    """A value of the file, whatever its size, in at most 80 characters."""
    try:
        text = _REPR.repr(list(value[:10]) if isinstance(value, tuple) else value)
    except ValueError:  # an integer of more digits than Python writes out
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _known_keys(location: tuple, group: type[BaseModel]) -> list[str]:
    for part in location:
        field = next((f for name, f in group.model_fields.items() if part in (name, f.alias)), None)
        if field is not None:  # else it is a key of a mapping
            group = _group_in(field.annotation) or group
    return sorted(field.alias or name for name, field in group.model_fields.items())


def _group_in(annotation: object) -> type[BaseModel] | None:
    """The group that a field may hold, or hold mappings of."""
    if get_args(annotation):
        return next((found for part in get_args(annotation) if (found := _group_in(part))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


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
