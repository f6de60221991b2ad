"""Stage ``cubes``: T frames of every clip through a fine-tuned net, ``data/<dataset>/cubes/<stream>-<split>``.

Every clip that has a role in the split gets one file: training, validation and test clips. Further views of the clips,
where ``cubes.views`` asks for them, are stores of their own beside it:
``data/<dataset>/views/<stream>-<split>/<view>``. Of clips that are not learnt from there are the views alone that take
other frames: a clip is classified by these, and never mirrored or shaken. What the store holds is counted in
``metrics/<dataset>/store/<stream>-<split>.json``.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.execution.opened import Opened
from pipeline.execution.told import told_plainly
from pipeline.params import Params, load_params, params_option

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from han_core.cache.store import ClipCache
    from han_core.nets.clip_inputs import Film
    from han_core.nets.extract import CubeNet
    from han_core.nets.stream_net import NetSource, StreamNet
    from han_core.nets.views import ClipView
    from pipeline.execution.jobs import ClipTask
    from pipeline.execution.work import ClipWork


@click.command()
@click.option("--stream", type=click.Choice(["spatial", "temporal"]), required=True)
@click.option("--split", type=click.IntRange(min=1), required=True)
@params_option
def main(stream: str, split: int, params_path: Path) -> None:
    """Compute the feature cubes of one stream with the net of one split."""
    params = load_params(params_path)

    from han_core.cache.store import ClipCache

    with told_plainly(f"cubes {stream}-{split}"):
        cubes(params, stream, split, ClipCache.from_environment(verify=params.run.verify))


@contextmanager
def cubes_work(params: Params, stream: str, split: int, view: str = "") -> Iterator["ClipWork"]:
    """What the stage makes of one view."""
    from han_core.clips import read_clips
    from han_core.devices import choose_device, device_apart, resolve_precision
    from han_core.nets.stream_net import NetSource
    from han_core.nets.views import ClipView
    from pipeline.execution.clip_tasks import net_work, stream_work
    from pipeline.paths import Paths, net_file

    paths, wanted = Paths.of(params), params.cubes
    table = read_clips(paths.clips)
    table.require(split)
    device = choose_device(params.run.device)
    source = NetSource(
        net_file(params, stream, split),
        stream,
        stack=params.stack,
        camera=params.camera,
        convention=getattr(params.finetune, stream).input,
        architecture=wanted.net,
        layer=wanted.layer,
    )
    net = source.look()
    precision = resolve_precision(wanted.precision, device)
    settings = CubeSettings(
        net=net.identity,
        input=net.input,
        stream=stream,
        stack=net.stack,
        frames=wanted.frames,
        layer=wanted.layer,
        fc=wanted.fc,
        batch=min(wanted.batch, wanted.frames),
        precision=precision,
        view=view,
        camera=params.camera if ClipView.of(view).shaken and stream == "temporal" else "none",
        device=device_apart(precision, device),
    )
    click.echo(
        f"cubes {stream}-{split}: {wanted.layer} and {wanted.fc} of {wanted.frames} frames per clip, on {device} in "
        f"{settings.precision}, with {net.path}"
    )
    make = MakeCubes(source.absolute(), settings, device.type)
    work = stream_work(
        "cubes",
        make,
        params,
        table,
        stream,
        split,
        roles=("train", "validation", "test") if ClipView.of(view).is_sampling else ("train",),
        fingerprint=settings.fingerprint,
        output=paths.cubes(stream, split, view),
    )
    work = replace(work, shard=wanted.shard, name=f"{work.name}-{view}" if view else work.name)
    with net_work(work, NETS, make, device, params.run) as ready:
        yield ready


def cubes(params: Params, stream: str, split: int, cache: "ClipCache") -> None:
    """Run the stage."""
    from han_core.cubes.statistics import StoreCount, write_statistics
    from pipeline.execution.clip_tasks import do
    from pipeline.execution.contents import write_contents_of_views
    from pipeline.execution.outputs import clear
    from pipeline.paths import Paths

    folder, views = Paths.of(params).views(stream, split), params.cubes.views
    folder.mkdir(parents=True, exist_ok=True)
    clear(*(path for path in folder.iterdir() if path.name not in views))
    for view in ("", *views):
        with cubes_work(params, stream, split, view) as work:
            if view:
                do(work, params, cache)
                continue
            counted = StoreCount()
            do(replace(work, noticed=counted.add), params, cache)
    statistics = Paths.of(params).store_statistics(stream, split)
    clear(statistics)
    write_statistics(counted.statistics(), statistics)
    write_contents_of_views(folder, views)


_PLAIN = (("view", ""), ("camera", "none"), ("device", ""))
"""Of the fields below: what is not part of a fingerprint."""


@dataclass(frozen=True)
class CubeSettings:
    """All that decides what is in a cube file, besides the frames or the flow."""

    net: str
    """Content of the net."""
    input: str
    stream: str
    stack: int
    """0 for the spatial stream."""
    frames: int
    layer: str
    fc: str
    batch: int
    """Images of a forward pass: rounding may depend on it."""
    precision: str
    view: str = ""
    """Name of a further view (:mod:`han_core.nets.views`)."""
    camera: str = "none"
    """Of a shaken view of flow: what is then taken out again as the camera's motion."""
    device: str = ""
    """Where the precision alone does not say how the net computes (:func:`han_core.devices.device_apart`)."""

    def fingerprint(self, source: str) -> str:
        """Identity of a clip's cube file, given the content of its frames or flow file."""
        from han_core.cache.fingerprint import fingerprint
        from pipeline.execution.code import stage_code

        parameters = {
            name: value for name, value in vars(self).items() if name != "net" and (name, value) not in _PLAIN
        }
        code = stage_code(f"cubes-{self.stream}")
        return fingerprint("cubes", code, parameters, {"net": self.net, "source": source})


@dataclass(frozen=True)
class MakeCubes:
    """Makes the cube file of one clip; called from several threads of each process that does the work. They share a
    net, which the first of them opens."""

    source: "NetSource"
    settings: CubeSettings
    device: str

    def open(self) -> "StreamNet":
        """The net that was looked at."""
        return self.source.open(self.settings.net)

    def running(self, net: "StreamNet") -> "CubeNet":
        """The net, ready to run."""
        from han_core.nets.extract import CubeNet

        settings = self.settings
        return CubeNet(
            net.net,
            net.scale,
            layer=settings.layer,
            fc=settings.fc,
            batch=settings.batch,
            precision=settings.precision,
            device=self.device,
        )

    def __call__(self, task: "ClipTask", path: Path) -> None:
        """Write the cubes of a clip, whose frames or flow file is the task's argument, to ``path``.

        Raises:
            ClipError: an activation does not fit into float16.
            ClipFileError: the frames or flow file is damaged.
        """
        import torch

        from han_core.cubes.cubefile import write_cubes
        from han_core.nets.clip_inputs import read_clip_frames
        from han_core.nets.views import ClipView

        settings, net = self.settings, NETS.get(self)
        view = ClipView.of(settings.view)
        film = self._film(task, view)
        clip = read_clip_frames(
            task.arguments, settings.frames, stack=settings.stack, view=view, film=film, memory=net.memory
        )
        write_cubes(
            path,
            clip=task.clip.name,
            fingerprint=task.fingerprint,
            frames=clip.frames,
            layer=settings.layer,
            fc=settings.fc,
            values=net.compute(clip),
            attributes={key: getattr(settings, key) for key in ("stream", "stack", "net", "input", "precision")}
            | ({"view": settings.view} if settings.view else {}),
            torch_threads=torch.get_num_threads(),
        )

    def _film(self, task: "ClipTask", view: "ClipView") -> "Film | None":
        """What makes the view a shaken one: both streams of a clip are moved alike."""
        if not view.shaken:
            return None
        from han_core.camera.shake import Hand, shake_frames, shake_levels
        from han_core.camera.storedflow import StoredFlow
        from han_core.clipfile.reader import ClipFile

        hand = Hand(view.shaken, f"{task.clip.name} {view.name}")
        if not self.settings.stack:
            return partial(shake_frames, hand=hand)
        with ClipFile(task.arguments) as file:
            form = StoredFlow(file).form
        camera = None if self.settings.camera == "none" else self.settings.camera
        return partial(shake_levels, hand=hand, form=form, camera=camera)


NETS: "Opened[MakeCubes, CubeNet]" = Opened(lambda make: make.running(make.open()))
"""The net that this process has open."""


if __name__ == "__main__":
    main()
