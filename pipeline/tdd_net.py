"""What the stages share that run a net along the trajectories of clips (TDD [20])."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.execution.opened import Opened
from pipeline.params import Params

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    import numpy as np
    import torch

    from han_core.baselines.tdd.pooling_net import PoolingNet
    from han_core.baselines.tdd.tracks import Tracks
    from han_core.nets.stream_net import NetSource, StreamNet
    from pipeline.execution.work import ClipWork


@dataclass(frozen=True)
class PoolingSettings:
    """All that decides a clip's descriptors, besides its images and its trajectories."""

    net: str
    """Content of the net."""
    input: str
    stream: str
    stack: int
    """0 for the spatial stream."""
    layers: tuple[str, ...]
    sizes: tuple[float, ...]
    step: int
    batch: int
    """Frames of a forward pass: rounding may depend on it."""
    precision: str
    device: str = ""
    """Where the precision alone does not say how the net computes (:func:`han_core.devices.device_apart`)."""

    @property
    def parameters(self) -> dict[str, object]:
        """For a fingerprint, of which the net is an input of its own."""
        return {name: value for name, value in vars(self).items() if name != "net" and (name, value) != ("device", "")}

    @property
    def attributes(self) -> dict[str, str | int]:
        """For a clip file."""
        kept = {name: getattr(self, name) for name in ("stream", "stack", "net", "input", "step", "precision")}
        return {**kept, "layers": ", ".join(self.layers), "sizes": ", ".join(map(str, self.sizes))}


@dataclass(frozen=True)
class ClipPaths:
    """What a task has to know beyond the clip."""

    images: Path
    """The clip's frames or flow file."""
    trajectories: Path
    take: int = 0
    """How many descriptors are drawn (stage tdd_samples)."""


@dataclass(frozen=True)
class Pooling:
    """What a worker has to know of the net; called from several threads of each process that does the work. They share
    a net, which the first of them opens."""

    source: "NetSource"
    settings: PoolingSettings
    device: str

    def open(self) -> "StreamNet":
        """The net that was looked at."""
        return self.source.open(self.settings.net)

    def running(self, net: "StreamNet") -> "PoolingNet":
        """The net, ready to run."""
        from han_core.baselines.tdd.pooling_net import PoolingNet

        settings = self.settings
        return PoolingNet(
            net.net,
            settings.input,
            layers=settings.layers,
            batch=settings.batch,
            precision=settings.precision,
            device=self.device,
        )

    def descriptors(self, images: Path, tracks: "Tracks") -> "Iterator[dict[str, np.ndarray]]":
        """Channel -> (n, C) descriptors of a clip's tracks at one size of the net's input after the other.

        Nothing at all where there are no tracks: the net is not run in vain.

        Raises:
            ClipError: an activation is not finite.
            ClipFileError: the frames or flow file is damaged.
            TracksError: the tracks are of another clip.
        """
        from han_core.baselines.tdd.clip_images import ClipImages

        if not len(tracks):
            return
        read = ClipImages(images, stack=self.settings.stack)
        for factor in self.settings.sizes:
            yield NETS.get(self).descriptors(read, tracks, factor=factor, step=self.settings.step)


NETS: "Opened[Pooling, PoolingNet]" = Opened(lambda pooling: pooling.running(pooling.open()))
"""The net that this process has open."""


def choose_pooling(
    params: Params, stream: str, split: int, said: Callable[[str], object]
) -> tuple[Pooling, "torch.device"]:
    """How the net of a stream and split pools, and what it is to run on.

    Args:
        said: is told what will run.

    Raises:
        WeightsError: the net is missing, or not one for this stream.
    """
    from han_core.devices import choose_device, device_apart, resolve_precision
    from han_core.nets.stream_net import NetSource
    from pipeline.paths import net_file

    wanted = params.tdd
    device = choose_device(params.run.device)
    source = NetSource(
        net_file(params, stream, split),
        stream,
        stack=params.stack,
        camera=params.camera,
        convention=getattr(params.finetune, stream).input,
    )
    net = source.look()
    precision = resolve_precision(wanted.precision, device)
    settings = PoolingSettings(
        net=net.identity,
        input=net.input,
        stream=stream,
        stack=net.stack,
        layers=getattr(wanted.layers, stream),
        sizes=wanted.sizes,
        step=wanted.step,
        batch=wanted.batch,
        precision=precision,
        device=device_apart(precision, device),
    )
    frames = "every frame" if wanted.step == 1 else f"one of every {wanted.step} frames"
    said(f"{', '.join(settings.layers)} of {frames}, on {device} in {settings.precision}, with {net.path}")
    return Pooling(source.absolute(), settings, device.type), device


@contextmanager
def pooling_work(work: "ClipWork", pooling: Pooling, device: "torch.device", params: Params) -> Iterator["ClipWork"]:
    """Who does a work whose function pools; see :func:`pipeline.execution.clip_tasks.net_work`."""
    from pipeline.execution.clip_tasks import net_work

    with net_work(work, NETS, pooling, device, params.run) as ready:
        yield ready


def stream_sources(params: Params, stream: str) -> Sequence[tuple[Path, str]]:
    """Folders and kinds of the clip files that a stream's descriptors are made of."""
    from pipeline.paths import Paths

    paths = Paths.of(params)
    return [paths.source(stream), (paths.trajectories, "trajectories")]
