"""``han predict``: what happens in a video, and where the model looked."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from han_core.cli.output import print_json
from han_core.datasets.delimited import DelimitedError, decoded, expanded, listed_paths, read_text
from han_core.errors import HanError
from han_core.video.encode import EncodeError, check_folder, encoder

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from han_core.predict.models import Recogniser
    from han_core.predict.sources import Source
    from han_core.predict.windows import Prediction

_TOP = 5


class _Named(click.Path):
    """A path that is not empty: ``Path("")`` is the current folder, for which an unset variable must not be taken."""

    def convert(self, value: str | os.PathLike, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if value == "":
            self.fail("is empty; is a variable of the shell not set?", param, ctx)
        return super().convert(value, param, ctx)


@click.command()
@click.argument("videos", nargs=-1, metavar="VIDEO...", type=_Named(readable=False, path_type=Path))
@click.option(
    "--list",
    "list_file",
    type=_Named(dir_okay=False, allow_dash=True, path_type=Path),
    help="Further videos: a file with one path a line, or a CSV with a column `path`, as of a dataset. Relative paths "
    "start from the folder of the list. - is standard input, whose paths start from here.",
)
@click.option(
    "--model",
    type=_Named(dir_okay=False, path_type=Path),
    help="A trained HAN (models/<dataset>/han/*.safetensors). Default: the last one trained in the workspace.",
)
@click.option(
    "--spatial-net",
    type=_Named(dir_okay=False, path_type=Path),
    help="The net whose features the model was trained on. Default: found in the workspace.",
)
@click.option("--temporal-net", type=_Named(dir_okay=False, path_type=Path), help="The temporal net, likewise.")
@click.option(
    "--workspace",
    type=_Named(file_okay=False, path_type=Path),
    default=Path(),
    help="The project folder that models and nets are looked for in. Default: here.",
)
@click.option(
    "--out",
    type=_Named(file_okay=False, readable=False, path_type=Path),
    default=Path("predictions"),
    show_default=True,
    help="Folder of the annotated videos, <name>.predict.mp4.",
)
@click.option("--video/--no-video", "annotated", default=True, show_default=True, help="Write annotated videos.")
@click.option(
    "--window",
    type=click.IntRange(min=2),
    help="Frames of a usual clip. A video longer than two of them is looked at in sliding windows of this length. "
    "Default: the median of the clips that the model learnt from.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def predict(
    videos: tuple[Path, ...],
    list_file: Path | None,
    model: Path | None,
    spatial_net: Path | None,
    temporal_net: Path | None,
    workspace: Path,
    out: Path,
    annotated: bool,
    window: int | None,
    device: str,
) -> None:
    """Label videos with a trained model.

    VIDEO is a file, or a folder of which all videos are taken. One line of JSON a video goes to standard output. A
    video, or a folder, that cannot be read gives a line with `error`; a video whose annotated copy cannot be written
    gives its label, and `video_error` instead of `annotated`. The others continue, and the exit code is 1.
    """
    if list_file is not None:
        videos += _listed(list_file)
    if not videos:
        raise click.UsageError("Missing argument 'VIDEO...', or --list FILE.")
    if annotated:
        try:
            encoder()
            check_folder(out)
        except EncodeError as error:
            raise click.ClickException(f"{error}; or take --no-video") from None
    from han_core.devices import choose_device
    from han_core.predict.models import load_recogniser
    from han_core.predict.sources import find_sources

    nets = {"spatial": spatial_net, "temporal": temporal_net}
    try:
        recogniser = load_recogniser(
            model,
            {stream: path for stream, path in nets.items() if path is not None},
            workspace=workspace,
            device=choose_device(device),
        )
    except HanError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"model {recogniser.path} ({recogniser.trained.variant}), on {recogniser.device}", err=True)
    unlabelled = without_copy = 0
    try:
        sources = find_sources(videos, out)
        for source in sources:
            found = _one(source, annotated, recogniser, window)
            unlabelled += "error" in found
            without_copy += "video_error" in found
            print_json(found)
    finally:
        recogniser.close()
    failed = [f"{unlabelled} of {len(sources)} videos could not be labelled"] if unlabelled else []
    if without_copy:
        failed.append(f"{without_copy} of {len(sources)} annotated copies could not be written")
    if failed:
        raise click.ClickException("; ".join(failed))


def _listed(file: Path) -> tuple[Path, ...]:
    """The videos of a list, with the folder that they start from."""
    try:
        if str(file) != "-":
            return tuple(_located(path, file.parent) for path in listed_paths(read_text(file), str(file)))
        name = "standard input"
        return tuple(_located(path, Path()) for path in listed_paths(decoded(sys.stdin.buffer.read(), name), name))
    except DelimitedError as error:
        raise click.ClickException(f"--list: {error}") from None


def _located(path: str, folder: Path) -> Path:
    """The file that a list names. A backslash is a slash, unless there is a file whose name has one."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # lists are UTF-8, also where the locale is ASCII
        path = os.fsdecode(path.encode())
    as_written = folder / os.path.expanduser(path)
    return as_written if os.path.lexists(as_written) else folder / expanded(path)


def _one(source: "Source", annotated: bool, recogniser: "Recogniser", window: int | None) -> dict:
    """Label one video: the line that is printed for it."""
    from han_core.predict.annotate import annotate
    from han_core.predict.windows import predict_video
    from han_core.runs.progress import Progress
    from han_core.video.decode import probe

    video, classes = source.path, recogniser.trained.classes
    line: dict = {"video": str(video)}
    try:
        if source.fault:
            raise HanError(source.fault)
        info = probe(video)
        with Progress(video.name, info.packets * (2 if annotated else 1), unit="frame") as progress:
            prediction = predict_video(video, recogniser, window=window, on_frames=progress.advance)
            line |= describe(prediction, classes, info.fps, even=info.even)
            if annotated:
                try:
                    annotate(video, prediction, classes, source.copy, on_frames=progress.advance)
                    line["annotated"] = str(source.copy)
                except HanError as error:  # what was computed is worth more than its picture
                    line["video_error"] = str(error)
    except HanError as error:
        click.echo(f"{video}: {error}", err=True)
        return line | {"error": str(error)}
    best = line["top"][0]
    click.echo(f"{video}: {best['label']} ({100 * best['probability']:.0f} %)", err=True)
    if "video_error" in line:
        click.echo(f"{video}: has no annotated copy: {line['video_error']}", err=True)
    return line


def describe(prediction: "Prediction", classes: tuple[str, ...], fps: float, *, even: bool = True) -> dict:
    """A prediction as plain values: ``frames``, ``fps``, ``top`` (five labels) and of a long video ``timeline``.

    Seconds in the timeline are those of the time stamps; ``uneven`` says that ``fps`` is a mean, ``damaged`` what of
    the video is damaged.
    """
    chances = prediction.probabilities
    best = (-chances).argsort(kind="stable")[:_TOP]
    line: dict = {
        "frames": prediction.count,
        "fps": round(fps, 3),
        "top": [{"label": classes[n], "probability": round(float(chances[n]), 6)} for n in best],
    }
    if not even:
        line["uneven"] = True
    if prediction.damage:
        line["damaged"] = str(prediction.damage)
    if len(prediction.windows) > 1:
        line["windows"] = len(prediction.windows)
        line["timeline"] = [
            {
                "start": segment.start,
                "end": segment.end,
                **_seconds(prediction, segment.start, segment.end, fps),
                "label": classes[segment.label],
                "probability": round(segment.probability, 6),
            }
            for segment in prediction.timeline()
        ]
    return line


def _seconds(prediction: "Prediction", start: int, end: int, fps: float) -> dict:
    """When a segment begins and ends; nothing where the video does not say."""
    times = prediction.times
    if not fps or len(times) < prediction.count:
        return {}
    last = times[end] if end < len(times) else times[-1] + 1 / fps
    return {"seconds": [round(times[start], 2), round(last, 2)]}
