"""Settings of the systems that HAN is compared with in Table 2."""

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, PositiveFloat, field_validator, model_validator

from pipeline.settings.han import Optimizer
from pipeline.settings.kinds import (
    Batch,
    Count,
    Frames,
    Group,
    PositiveCount,
    Share,
    Split,
    Units,
    Weights,
    each_once,
    no_boolean,
)

SYSTEMS = {
    "deep_lstm": "cnn_lstm",
    "fisher": "fisher",
    "stacked": "stacked",
    "tdd": "tdd",
    "tdd_cubes": "tdd_cubes",
    "slow_fusion": "slow_fusion",
}
"""Family of rows -> the group whose ``splits`` say whether it is made: those of ``splits``, or [] for none."""
Channel = Literal["trajectory", "hog", "hof", "mbhx", "mbhy"]
PooledLayer = Literal[
    "conv3_1", "conv3_2", "conv3_3", "pool3", "conv4_1", "conv4_2", "conv4_3", "pool4", "conv5_1", "conv5_2", "conv5_3"
]


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
    median: Annotated[Literal[1, 3, 5], BeforeValidator(no_boolean)] = 5
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
        return each_once(layers)


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
        return each_once(sizes)


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
