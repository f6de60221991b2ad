"""Stage ``decode``: every video becomes one file of JPEG-encoded frames, ``data/<dataset>/frames/<class>/<clip>.h5``.

A video that cannot be decoded, that is missing, or that is not the file that ``prepare`` saw is a row of the failure
ledger; see ``pipeline/execution/runner.py``.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import click

from han_core.cache.fingerprint import fingerprint
from han_core.cache.store import ClipCache
from han_core.clips import Clip, read_clips
from han_core.images.frames import write_frames
from han_core.video.decode import VideoError, probe, read_video
from pipeline.execution.clip_tasks import do
from pipeline.execution.code import stage_code
from pipeline.execution.jobs import ClipTask
from pipeline.execution.runner import Summary
from pipeline.execution.told import told_plainly
from pipeline.execution.work import ClipWork
from pipeline.params import Params, load_params, params_option
from pipeline.paths import Paths


@dataclass(frozen=True)
class Arguments:
    """What a worker has to know beyond the clip."""

    video: Path
    short_side: int | None
    quality: int
    damaged_share: float
    time_limit: float


def decode_clip(task: ClipTask, path: Path) -> None:
    """Decode one clip into the frames file ``path``.

    Raises:
        ClipError: the video is missing, has changed, or cannot be decoded.
        OSError: it cannot be read, or the file cannot be written.
    """
    arguments: Arguments = task.arguments
    if _sha256(arguments.video) != task.clip.sha256:
        raise VideoError("the video file has changed since prepare; run prepare again")
    info = probe(arguments.video)
    frames = read_video(
        arguments.video,
        short_side=arguments.short_side,
        damaged_share=arguments.damaged_share,
        time_limit=arguments.time_limit,
    )

    def attributes() -> dict[str, int | float]:
        """Frames per second (0 if the video does not say), whether they are shown equally long, encoded pictures, and
        what was damaged."""
        damage = frames.damage
        found = {name: getattr(damage, name) for name in ("lost", "reported", "corrupt", "missing")}
        return {"fps": info.fps, "even": info.even, "packets": info.packets, "damaged": damage.damaged, **found}

    with frames:
        write_frames(
            frames,
            path,
            clip=task.clip.name,
            fingerprint=task.fingerprint,
            quality=arguments.quality,
            attributes=attributes,
        )


def decode_fingerprint(params: Params, clip: Clip) -> str:
    """Identity of a clip's frames file: its name, its video's content, and the parameters of the stage."""
    inputs = {"clip": clip.name, "video": clip.sha256}
    return fingerprint("decode", stage_code("decode"), params.decode.model_dump(exclude={"time_limit"}), inputs)


def decode_work(params: Params) -> ClipWork:
    """What the stage makes."""
    paths = Paths.of(params)
    table = read_clips(paths.clips)
    root = params.dataset.videos.absolute()
    tasks = (
        ClipTask(clip, decode_fingerprint(params, clip), Arguments(root / clip.path, **dict(params.decode)))
        for clip in table.clips
    )
    return ClipWork("decode", "decode", "frames", decode_clip, tuple(tasks), paths.frames)


def decode(params: Params, cache: ClipCache) -> Summary:
    """Run the stage."""
    work = decode_work(params)
    size = f"shorter side at most {params.decode.short_side}" if params.decode.short_side else "in their own size"
    click.echo(f"decode: {len(work.tasks)} videos of {params.dataset.root} to JPEG {params.decode.quality}, {size}")
    return do(work, params, cache)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (FileNotFoundError, NotADirectoryError):
        raise VideoError("the video file is missing") from None
    except IsADirectoryError as error:
        raise VideoError(f"the video file cannot be read ({error.strerror})") from None


@click.command()
@params_option
def main(params_path: Path) -> None:
    """Decode the videos of the dataset into frames files."""
    params = load_params(params_path)
    with told_plainly("decode"):
        decode(params, ClipCache.from_environment(verify=params.run.verify))


if __name__ == "__main__":
    main()
