"""Stage ``cubes``: T frames of every clip through a fine-tuned net, ``data/<dataset>/cubes/<stream>-<split>``.

Every clip that has a role in the split gets one file: training, validation and test clips. The stage is one process
that holds the net; threads read and decode the next clips, and compress and write the last ones, while it computes.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from han_core.errors import HanError
from pipeline.params import Params, load_params, params_option

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    import torch

    from han_core.cache import ClipCache
    from han_core.cubes import CubeNet
    from pipeline.runner import ClipTask, Summary

VERSION = 1
_CLIPS_IN_WORK = 3  # one being read, one computed, one written


@click.command()
@click.option("--stream", type=click.Choice(["spatial", "temporal"]), required=True)
@click.option("--split", type=click.IntRange(min=1), required=True)
@params_option
def main(stream: str, split: int, params_path: Path) -> None:
    """Compute the feature cubes of one stream with the net of one split."""
    params = load_params(params_path)

    from han_core.cache import ClipCache

    try:
        cubes(params, stream, split, ClipCache.from_environment(verify=params.run.verify))
    except HanError as error:
        raise click.ClickException(f"cubes {stream}-{split}: {error}") from None


def cubes(params: Params, stream: str, split: int, cache: "ClipCache") -> "Summary":
    """Run the stage."""
    from han_core.clipfile import ClipFileError, read_trailer
    from han_core.datasets.clips import ClipTableError, read_clips
    from han_core.precision import resolve_precision
    from pipeline.device import choose_device
    from pipeline.paths import Paths, clip_file
    from pipeline.runner import ClipTask, map_clips, read_failures

    paths = Paths.of(params)
    table = read_clips(paths.clips)
    if split not in table.splits:
        known = ", ".join(map(str, table.splits))
        raise ClipTableError(f"{paths.clips}: has no split {split}, only {known}; set splits and run stage prepare")
    used = {clip for role in ("train", "validation", "test") for clip in table.select(split, role)}
    source, kind = (paths.frames, "frames") if stream == "spatial" else (paths.flow, "flow")
    failed = {name: f"no {kind}: {reason}" for name, reason in read_failures(source).items()}

    device = choose_device(params.run.device)
    precision = resolve_precision(params.cubes.precision, device)
    settings, net = load_net(params, stream, paths.net(stream, split), precision, device)
    click.echo(
        f"cubes {stream}-{split}: {params.cubes.layer} and {params.cubes.fc} of {params.cubes.frames} frames of "
        f"{len(used)} clips, on {device} in {precision}, with {paths.net(stream, split)}"
    )
    tasks = []
    for clip in used:
        path = clip_file(source, clip.class_name, clip.name)
        identity = ""
        if clip.name not in failed:
            try:
                identity = cubes_fingerprint(settings, read_trailer(path).fingerprint)
            except ClipFileError:
                failed[clip.name] = f"its {kind} file is missing or damaged; run the stage that makes {kind} again"
        tasks.append(ClipTask(clip, identity, path))

    with net, ThreadPoolExecutor(_CLIPS_IN_WORK, thread_name_prefix="clips") as pool:
        try:
            return map_clips(
                f"cubes-{stream}-{split}",
                MakeCubes(net, settings),
                tasks,
                kind="cubes",
                output=paths.cubes(stream, split),
                cache=cache,
                run=params.run,
                allowed_failures=params.dataset.allowed_failures,
                failed=failed,
                executor=pool,
                log_path=paths.log(f"cubes-{stream}-{split}"),
            )
        finally:
            pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class CubeSettings:
    """All that decides what is in a cube file, besides the frames or the flow."""

    net: str
    """Fingerprint of the net."""
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


def cubes_fingerprint(settings: CubeSettings, source: str) -> str:
    """Identity of a clip's cube file, given that of its frames or flow file."""
    from han_core.cache import fingerprint

    parameters = {name: value for name, value in vars(settings).items() if name != "net"}
    return fingerprint("cubes", VERSION, parameters, {"net": settings.net, "source": source})


@dataclass(frozen=True)
class MakeCubes:
    """Makes the cube file of one clip; called from several threads."""

    net: "CubeNet"
    settings: CubeSettings

    def __call__(self, task: "ClipTask", path: Path) -> None:
        """Write the cubes of a clip, whose frames or flow file is the task's argument, to ``path``.

        Raises:
            ClipError: an activation does not fit into float16.
            ClipFileError: the frames or flow file is damaged.
        """
        from han_core.cubes import read_clip_frames, write_cubes

        settings = self.settings
        clip = read_clip_frames(task.arguments, settings.frames, stack=settings.stack)
        write_cubes(
            path,
            clip=task.clip.name,
            fingerprint=task.fingerprint,
            frames=clip.frames,
            layer=settings.layer,
            fc=settings.fc,
            values=self.net.compute(clip),
            attributes={key: getattr(settings, key) for key in ("stream", "stack", "net", "input", "precision")},
        )


def load_net(
    params: Params, stream: str, path: Path, precision: str, device: "torch.device"
) -> tuple[CubeSettings, "CubeNet"]:
    """The net of a stream, checked against the params.

    Raises:
        WeightsError: the file is missing or damaged, or the net is not one for this stream and stack.
    """
    from han_core.cubes import CubeNet
    from han_core.weights import WeightsError, net_identity, read_net, resolve_convention

    if not path.exists():
        raise WeightsError(f"{path}: is missing; make it with stage finetune of dataset {params.cubes.nets}")
    net, metadata = read_net(path)
    stack = 0 if stream == "spatial" else params.stack
    wanted = 2 * stack or 3
    if net.in_channels != wanted:
        raise WeightsError(
            f"{path}: the net takes {net.in_channels} channels, but the {stream} stream has {wanted}"
            + (f" (stack: {stack})" if stack else "")
        )
    told = metadata.get("stream", stream)
    if told != stream:
        raise WeightsError(f"{path}: is a net of the {told} stream")
    convention = resolve_convention(str(path), getattr(params.finetune, stream).input)
    wanted_layers = {"layer": params.cubes.layer, "fc": params.cubes.fc}
    settings = CubeSettings(
        net=net_identity(path, metadata),
        input=convention,
        stream=stream,
        stack=stack,
        frames=params.cubes.frames,
        batch=min(params.cubes.batch, params.cubes.frames),
        precision=precision,
        **wanted_layers,
    )
    made = CubeNet(net, convention, batch=settings.batch, precision=precision, device=device, **wanted_layers)
    return settings, made


if __name__ == "__main__":
    main()
