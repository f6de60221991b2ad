"""``params.yaml`` as typed, frozen objects.

Every stage calls :func:`load_params` before it does anything else, so that a wrong value is refused before any
work, and every wrong value is named in one report. The classes below are the only list of what may be set; each
field is described once, here.
"""

import difflib
from pathlib import Path
from typing import Annotated, Literal, get_args

import click
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from han_core.datasets.synthetic.generate import SyntheticSpec
from han_core.rows import families, table_lines

Model = Literal[families("classify")]
Baseline = Literal[families("baselines")]
TABLE_1: tuple[Model, ...] = tuple(row.name for rows in table_lines(1).values() for row in rows)
Layer = Literal[
    "conv1_1", "conv1_2", "pool1", "conv2_1", "conv2_2", "pool2", "conv3_1", "conv3_2", "conv3_3", "pool3",
    "conv4_1", "conv4_2", "conv4_3", "pool4", "conv5_1", "conv5_2", "conv5_3", "pool5", "fc6", "fc7",
]  # fmt: skip
_LEARNT = (*(layer for layer in get_args(Layer) if not layer.startswith("pool")), "fc8")
Share = Annotated[float, Field(ge=0, lt=1)]


class ParamsError(click.ClickException):
    """Raised with every problem of a params file, one per line; click prints it without a traceback."""


class Group(BaseModel):
    """Base of all groups: unknown keys are refused, values cannot be changed after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Folder(Group):
    """How groups and splits of a class-folder dataset come about (``dataset.kind: folder`` or ``synthetic``)."""

    group_pattern: str | None = None
    """Regular expression searched in a clip's file stem; its first group (or the whole match) is the clip's
    group, e.g. the person filmed. Without one every clip is a group of its own. The synthetic names bring theirs."""
    split_by: Literal["list", "fold", "fraction"] = "fraction"
    """``list``: trainlistNN.txt/testlistNN.txt in ``dataset.annotations``; ``fold``: groups dealt into ``folds``
    folds, fold i is the test set of split i; ``fraction``: ``test_share`` of the groups, drawn again for each split."""
    folds: Annotated[int, Field(ge=2)] = 5
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.3


class Dataset(Group):
    """Where clips come from."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]
    """Part of every path, so that several datasets live side by side."""
    kind: Literal["synthetic", "folder", "ucf101", "hmdb51", "ut_interaction"]
    root: Path
    """Folder of the videos. Paths in clips.csv are relative to it."""
    generate: tuple[Literal["synthetic"], ...] = ()
    """``[synthetic]`` makes DVC generate the videos under ``root`` first."""
    annotations: Path | None = None
    """Folder of the split files (ucf101, hmdb51, folder with ``split_by: list``)."""
    validation_share: Share = 0.0
    """Share of the training GROUPS held out as a validation set."""
    allowed_failures: Annotated[int, Field(ge=0)] = 0
    """How many clips may fail in a stage before the stage itself fails."""
    folder: Folder = Folder()


class Synthetic(Group):
    """The generated dataset; see ``han_core/datasets/synthetic/generate.py``."""

    groups: Annotated[int, Field(ge=2)] = 12
    """Background, figure, place and camera of a clip; whole groups are train or test (``dataset.folder``)."""
    clips_per_group: PositiveInt = 1
    """Clips of each class in each group; each has distractors, jitter and phase of its own."""
    frames: Annotated[int, Field(ge=12)] = 36
    width: Annotated[int, Field(ge=64)] = 160
    height: Annotated[int, Field(ge=64)] = 120
    fps: PositiveFloat = 25.0


class Run(Group):
    """How the work is spread. Never changes a result, so no stage depends on it."""

    workers: Annotated[int, Field(ge=0)] = 0
    """Worker processes of a map over clips; 0 is one per core."""
    executor: Literal["local", "dask"] = "local"
    scheduler: str | None = None
    """Address of the dask scheduler (``executor: dask``)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    verify: Literal["size", "content"] = "size"
    """Before a cached file is reused: ``size`` compares its identity and length, ``content`` its checksum as well,
    which reads the whole file."""
    store: Literal["auto", "stream", "memory", "device"] = "auto"
    """Cubes while HAN trains: ``stream`` reads them batch by batch, ``memory`` holds all in sparse form, ``device``
    holds them so on the GPU, ``auto`` goes by size."""
    processes: Annotated[int, Field(ge=0)] = 1
    """Processes that fine-tune a net, or train HAN, together; 0 is one per GPU."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 60.0
    """Least time between two checkpoints of a training run, which resumes from the last one if it is killed."""


class Decode(Group):
    short_side: Annotated[int, Field(ge=32)] | None = None
    """Frames whose shorter side is longer than this are shrunk to it; null keeps the size of the video."""
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    """JPEG quality; below 95 is known to cost accuracy."""
    damaged_share: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of a video's pictures that may be damaged (not decodable, missing, or with errors that the decoder reports)
    while its frames are kept and the damage is counted. A video with more fails; 0 refuses any damage, 1 keeps all."""
    time_limit: PositiveFloat = 3600.0
    """Seconds that the decoding of one video may take; never changes a result."""


class TVL1(Group):
    """TV-L1 under OpenCV's names, OpenCV-CUDA's defaults."""

    tau: PositiveFloat = 0.25
    lambda_: Annotated[float, Field(gt=0, alias="lambda")] = 0.15
    theta: PositiveFloat = 0.3
    scales: PositiveInt = 5
    scale_step: Annotated[float, Field(gt=0, lt=1)] = 0.8
    warps: PositiveInt = 5
    epsilon: PositiveFloat = 0.01
    iterations: PositiveInt = 300
    median: Literal[1, 3, 5] = 1
    """Side of the median filter between iterations; 1 is none."""
    settle: Annotated[int, Field(ge=0)] = 10
    """Further iterations when the last warp on the finest level has met the stopping rule; OpenCV has none."""


class Flow(Group):
    backend: Literal["auto", "reference", "cpu", "cuda", "opencv"] = "auto"
    size: tuple[PositiveInt, PositiveInt] | None = None
    """Width and height at which flow is computed and stored, in pixels of that size; null is the frames' own."""
    bound: PositiveFloat = 20.0
    """Pixels mapped to the ends of the 0..255 scale; larger motion is clipped."""
    rounding: Literal["nearest", "floor"] = "nearest"
    codec: Literal["jpeg", "png"] = "jpeg"
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    batch: PositiveInt = 16
    """Pairs of frames in memory at once."""
    tvl1: TVL1 = TVL1()


class Recipe(Group):
    """How one VGG-16 is fine-tuned; PAPER: SGD with momentum on randomly chosen frames or flow stacks."""

    weights: str = "imagenet"
    """``imagenet`` (torchvision's download), ``random``, or the path of a safetensors file."""
    input: Literal["auto", "caffe", "torchvision"] = "auto"
    """Scale of the input that the weights expect; ``auto`` reads it from the file (see ``han_core/nets/vgg16.py``)."""
    fc_size: PositiveInt = 4096
    """Units of fc6 and fc7."""
    iterations: Annotated[int, Field(ge=0)] = 0
    """SGD steps; 0 uses the initial net as it is."""
    batch: PositiveInt = 256
    """Effective batch of one step."""
    micro_batch: PositiveInt = 32
    """Images in memory at once; gradients are accumulated until the effective batch is reached."""
    learning_rate: PositiveFloat = 0.001
    steps: tuple[PositiveInt, ...] = ()
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
    warmup: Annotated[int, Field(ge=0)] = 0
    """Iterations over which the learning rate rises linearly, the last of them being the first at the full rate."""
    clip_gradient: Annotated[float, Field(ge=0)] = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    frozen: Layer | None = None
    """Name of the last layer that is not trained, e.g. ``conv4_3``; null trains all."""
    precision: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Arithmetic of the layers (weights and their updates stay float32); ``float16`` scales the loss so that small
    gradients survive, ``auto`` takes bfloat16 where torch says that the device has it, float32 elsewhere."""
    validate_every: Annotated[int, Field(ge=0)] = 500
    """Iterations between two looks at the validation clips, where ``dataset.validation_share`` holds some out: a
    column of the curve, by which nothing is chosen. 0 never looks."""
    scales: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (1.0, 0.875, 0.75, 0.66)
    """Scale jitter: crop sides as shares of the shorter side, one drawn for the width and one for the height."""
    max_distort: Annotated[int, Field(ge=0)] | None = None
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
            raise ValueError(f"no layer's name starts with {', '.join(unknown)}; layers are {', '.join(_LEARNT)}")
        return rates


class Finetune(Group):
    splits: tuple[PositiveInt, ...] = ()
    """Splits whose nets are made here: all of ``splits``, or none when ``cubes.nets`` names another dataset's nets."""
    spatial: Recipe = Recipe()
    temporal: Recipe = Recipe()


class Cubes(Group):
    nets: str
    """Name of the dataset whose nets are used; HMDB-51 uses those of UCF-101, as the paper does."""
    frames: PositiveInt = 25
    """T: frames per clip, equally spaced in time."""
    layer: Literal["conv5_3", "pool4", "pool5"] = "conv5_3"
    fc: Literal["fc6", "fc7"] = "fc7"
    batch: PositiveInt = 25
    """Images a forward pass; never of two clips, so that a clip's cube does not depend on its neighbours."""
    precision: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Arithmetic of the net. ``bfloat16`` differs by about 1.5 % from float32 and is twice as fast on processors that
    have it; ``auto`` takes it where torch says that the device has it, float32 elsewhere."""


class Scores(Group):
    """The fine-tuned nets' own answers, by the test protocol of the two-stream ConvNets [16]."""

    enabled: bool = True
    """false leaves out the rows ``spatial_net``, ``temporal_net``, ``two_stream`` and ``two_stream_svm``."""
    frames: PositiveInt = 25
    """Frames a clip, equally spaced in time."""
    crops: Literal["whole", 1, 5, 10] = 10
    """Of each frame: all of it, squeezed into a square, which suits nets trained with ``corner_crops: false``; the
    centre; the corners too; all of them mirrored too."""
    batch: PositiveInt = 25
    """Crops a forward pass; never of two clips."""
    precision: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """Arithmetic of the net, as ``cubes.precision``."""


class Optimizer(Group):
    name: Literal["adadelta", "adam", "sgd"] = "adadelta"
    learning_rate: PositiveFloat = 1.0
    rho: Share = 0.95
    eps: PositiveFloat = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class Train(Group):
    """HAN, eq. 2 to 6 of the paper."""

    lstm_size: PositiveInt = 1024
    """D', units of each LSTM layer."""
    layers: PositiveInt = 2
    """L, LSTM layers per stream."""
    skip: PositiveInt = 5
    """k: a layer reads every k-th state of the layer below."""
    dropout: Share = 0.5
    attention: Literal["location", "content"] = "location"
    """``location`` is eq. 3; ``content`` also looks at the region's feature, as the code of [15] does."""
    initial_state: Literal["zeros", "mean"] = "zeros"
    forget_bias: Literal["span"] | float = "span"
    """Initial bias of the LSTMs' forget gates; ``span`` lets every layer remember its whole sequence at the start."""
    standardize: bool = True
    """Subtract mean and divide by standard deviation of each channel over the training clips."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Arithmetic of the products with weight matrices; ``auto`` is bfloat16 where the device multiplies it."""
    batch: PositiveInt = 128
    """Clips of a step, whatever the number of processes."""
    epochs: PositiveInt = 100
    clip_gradient: Annotated[float, Field(ge=0)] = 0.0
    optimizer: Optimizer = Optimizer()


class Evaluate(Group):
    baselines: tuple[Baseline, ...] = ()
    """``linear``: logistic regression on cubes averaged over regions, frames side by side; ``linear_mean``: averaged
    over the frames too; ``frame_size``: on width, height and ratio of the frames alone."""

    fusion: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (1.0, 1.0)
    """Weights of the spatial and the temporal net's scores in ``two_stream``; [16] takes the plain mean."""


class Report(Group):
    clips: Annotated[int, Field(ge=0)] | tuple[str, ...] = 4
    """Test clips whose attention maps are drawn: how many, or their names."""


class Params(Group):
    seed: Annotated[int, Field(ge=0)] = 1
    splits: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]
    models: Annotated[tuple[Model, ...], Field(min_length=1)] = TABLE_1
    stack: PositiveInt = 10
    """L: flow fields in one input of the temporal net."""
    dataset: Dataset
    synthetic: Synthetic | None = None
    run: Run = Run()
    decode: Decode = Decode()
    flow: Flow = Flow()
    finetune: Finetune = Finetune()
    cubes: Cubes
    scores: Scores = Scores()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()

    @property
    def families(self) -> tuple[str, ...]:
        """The rows, or families of rows (``han_core/rows.py``), that are evaluated and reported, in this order."""
        return (*self.models, *(families("two_stream") if self.scores.enabled else ()), *self.evaluate.baselines)

    @model_validator(mode="after")
    def _consistent(self) -> "Params":
        problems = []
        for key in ("splits", "models"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                problems.append(f"{key}: holds a value twice")
        if self.dataset.kind == "synthetic" and self.synthetic is None:
            problems.append("synthetic: is missing, but dataset.kind is synthetic")
        if (self.dataset.kind == "synthetic") != bool(self.dataset.generate):
            problems.append("dataset.generate: must be [synthetic] for dataset.kind synthetic, [] for any other kind")
        if self.dataset.kind == "synthetic" and self.dataset.folder.group_pattern is not None:
            problems.append("dataset.folder.group_pattern: must be null for dataset.kind synthetic")
        if self.dataset.kind in ("ucf101", "hmdb51") and self.dataset.annotations is None:
            problems.append(f"dataset.annotations: is missing; {self.dataset.kind} needs the folder of its split files")
        if self.dataset.kind == "folder" and self.dataset.folder.split_by == "list" and not self.dataset.annotations:
            problems.append("dataset.annotations: is missing, but dataset.folder.split_by is list")
        own = self.cubes.nets == self.dataset.name
        if own and self.finetune.splits != self.splits:
            problems.append("finetune.splits: must equal splits, because cubes.nets names this dataset's own nets")
        if not own and self.finetune.splits:
            problems.append(f"finetune.splits: must be [], because cubes.nets takes the nets of {self.cubes.nets}")
        if not any(self.evaluate.fusion):
            problems.append("evaluate.fusion: one of the two weights must be more than 0")
        if self.run.executor == "dask" and not self.run.scheduler:
            problems.append("run.scheduler: is missing, but run.executor is dask")
        if problems:
            raise ValueError("\n".join(problems))
        return self


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check a params file.

    Raises:
        ParamsError: the file is missing, is not a YAML mapping, or holds unknown, missing or impossible values; the
            message names them all.
    """
    path = Path(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParamsError(f"{path}: cannot be read ({error.strerror}). Copy one from presets/.") from None
    except yaml.YAMLError as error:
        raise ParamsError(f"{path}: is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ParamsError(f"{path}: must be a mapping of groups, e.g. `seed: 1`")
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        problems = [line for item in error.errors() for line in _describe(item)]
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise ParamsError(f"{path}: {count}\n  " + "\n  ".join(problems)) from None


def _describe(item: dict) -> list[str]:
    """One pydantic error as plain lines that start with the dotted key."""
    key = ".".join(str(part) for part in item["loc"])
    if not key:
        return str(item["ctx"]["error"]).splitlines()
    if item["type"] == "extra_forbidden":
        known = _known_keys(item["loc"][:-1])
        close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
        return [f"{key}: unknown key" + (f"; did you mean {close[0]}?" if close else "; known: " + ", ".join(known))]
    if item["type"] == "missing":
        return [f"{key}: is missing"]
    if item["type"] == "value_error":
        return [f"{key}: {item['ctx']['error']}"]
    return [f"{key}: {item['msg'][0].lower()}{item['msg'][1:]}, not {item['input']!r}"]


def _known_keys(location: tuple) -> list[str]:
    group: type[BaseModel] = Params
    for part in location:
        annotation = next(f.annotation for n, f in group.model_fields.items() if part in (n, f.alias))
        candidates = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type)]
        group = next(a for a in candidates if issubclass(a, BaseModel))
    return sorted(field.alias or name for name, field in group.model_fields.items())


params_option = click.option(
    "--params",
    "params_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("params.yaml"),
    show_default=True,
    help="The params file.",
)


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
    )
