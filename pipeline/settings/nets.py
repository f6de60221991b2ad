"""Settings of the two-stream nets: how they are trained, and what is made with them."""

import re
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, PositiveFloat, ValidationInfo, field_validator

from han_core.nets.views import FURTHER
from pipeline.settings.kinds import (
    Batch,
    Count,
    Frames,
    Group,
    Name,
    PositiveCount,
    Share,
    Split,
    Units,
    Weights,
    no_boolean,
)
from pipeline.settings.problems import printable, shown

Layer = Literal[
    "conv1_1", "conv1_2", "pool1", "conv2_1", "conv2_2", "pool2", "conv3_1", "conv3_2", "conv3_3", "pool3",
    "conv4_1", "conv4_2", "conv4_3", "pool4", "conv5_1", "conv5_2", "conv5_3", "pool5", "fc6", "fc7",
]  # fmt: skip
_LEARNT = (*(layer for layer in get_args(Layer) if not layer.startswith("pool")), "fc8")

VGG16 = "vgg16"
"""The net that is fine-tuned here; ``cubes.net`` names others."""
_VGG16_MAPS = ("conv5_3", "pool4", "pool5")


def _architecture(name: str) -> str:
    """Whether torchvision has it is found out by the stages: importing torchvision takes seconds."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,99}", name):
        raise ValueError(f"must be {VGG16} or the name of a classification model of torchvision, not {shown(name)}")
    return name


def _module(name: str) -> str:
    if len(name) > 200 or not re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*", name):
        raise ValueError(f"must be the name of a layer, or of a module as layer4.2.conv3, not {shown(name)}")
    return name


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
    rates: dict[str, PositiveFloat] = Field(default_factory=dict)
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
            names = ", ".join(printable(start) for start in unknown[:10])
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
            raise ValueError(f"must be {', '.join(_VGG16_MAPS)} where cubes.net is {VGG16}, not {shown(layer)}")
        return layer


class Scores(Group):
    """The fine-tuned nets' own answers, by the test protocol of the two-stream ConvNets [16]."""

    enabled: bool = True
    """false leaves out the rows ``spatial_net``, ``temporal_net``, ``two_stream`` and ``two_stream_svm``."""
    frames: Frames = 25
    """Frames a clip, equally spaced in time."""
    crops: Annotated[Literal["whole", 1, 5, 10], BeforeValidator(no_boolean)] = 10
    """Of each frame: all of it, squeezed into a square, which suits nets trained with ``corner_crops: false``; the
    centre; the corners too; all of them mirrored too."""
    batch: Batch = 25
    """Crops a forward pass; never of two clips."""
    precision: Literal["float32", "tf32", "bfloat16", "float16", "auto"] = "float32"
    """Arithmetic of the net, as ``cubes.precision``."""
