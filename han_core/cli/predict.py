"""``han predict``: what happens in a video, and where the model looked."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from han_core.datasets.delimited import DelimitedError, decoded, expanded, listed_paths, read_text
from han_core.errors import HanError
from han_core.video.container import is_video_name
from han_core.video.encode import EncodeError, encoder

if TYPE_CHECKING:  # torch takes seconds to import, and --help should not
    from han_core.predict.models import Recogniser
    from han_core.predict.windows import Prediction

_TOP = 5


@click.command()
@click.argument("videos", nargs=-1, metavar="VIDEO...", type=click.Path(path_type=Path))
@click.option(
    "--list",
    "list_file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Further videos: a file with one path a line, or a CSV with a column `path`, as of a dataset. Relative paths "
    "start from the folder of the list. - is standard input, whose paths start from here.",
)
@click.option(
    "--model",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A trained HAN (models/<dataset>/han/*.safetensors). Default: the last one trained in the workspace.",
)
@click.option(
    "--spatial-net",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The net whose features the model was trained on. Default: found in the workspace.",
)
@click.option("--temporal-net", type=click.Path(dir_okay=False, path_type=Path), help="The temporal net, likewise.")
@click.option(
    "--workspace",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    help="The project folder that models and nets are looked for in. Default: here.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
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

    VIDEO is a file, or a folder of which all videos are taken. One line of JSON a video goes to standard output; a
    video that cannot be read gives a line with `error`, the others continue, and the exit code is 1.
    """
    if list_file is not None:
        videos += _listed(list_file)
    if not videos:
        raise click.UsageError("Missing argument 'VIDEO...', or --list FILE.")
    if annotated:
        try:
            encoder()
        except EncodeError as error:
            raise click.ClickException(f"{error}; or take --no-video") from None
    from han_core.devices import choose_device
    from han_core.predict.models import load_recogniser

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
    failed = 0
    try:
        targets = _targets(videos, out)
        for video, target in targets:
            found = _one(video, target if annotated else None, recogniser, window)
            failed += "error" in found
            click.echo(json.dumps(found, ensure_ascii=False))
    finally:
        recogniser.close()
    if failed:
        raise click.ClickException(f"{failed} of {len(targets)} videos could not be labelled")


def _listed(file: Path) -> tuple[Path, ...]:
    """The videos of a list, with the folder that they start from."""
    try:
        if str(file) != "-":
            return tuple(file.parent / expanded(path) for path in listed_paths(read_text(file), str(file)))
        name = "standard input"
        return tuple(Path(expanded(path)) for path in listed_paths(decoded(sys.stdin.buffer.read(), name), name))
    except DelimitedError as error:
        raise click.ClickException(f"--list: {error}") from None


def _one(video: Path, target: Path | None, recogniser: "Recogniser", window: int | None) -> dict:
    """Label one video: the line that is printed for it."""
    from han_core.predict.annotate import annotate
    from han_core.predict.windows import predict_video
    from han_core.runs.progress import Progress
    from han_core.video.decode import probe

    try:
        if video.is_dir():
            raise HanError("is a folder without a video" if not list(video.iterdir()) else "is a folder without videos")
        info = probe(video)
        total = info.packets * (2 if target else 1)
        with Progress(video.name, total, unit="frame") as progress:
            prediction = predict_video(video, recogniser, window=window, on_frames=progress.advance)
            if target:
                annotate(video, prediction, recogniser.trained.classes, target, on_frames=progress.advance)
    except HanError as error:
        click.echo(f"{video}: {error}", err=True)
        return {"video": str(video), "error": str(error)}
    line = describe(prediction, recogniser.trained.classes, info.fps, even=info.even)
    best = line["top"][0]
    click.echo(f"{video}: {best['label']} ({100 * best['probability']:.0f} %)", err=True)
    return {"video": str(video), **line, **({"annotated": str(target)} if target else {})}


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


def _videos_below(folder: Path, out: Path) -> list[Path]:
    """Videos in a folder and its subfolders; nothing hidden, and nothing that this command has written."""
    written = out.resolve()

    def counts(path: Path) -> bool:
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        return is_video_name(path.name) and not hidden and written not in path.resolve().parents and path.is_file()

    return sorted(path for path in folder.rglob("*") if counts(path))


def _targets(arguments: Iterable[Path], out: Path) -> list[tuple[Path, Path]]:
    """Every video with the file of its annotated copy; no two copies have one name."""
    found: list[Path] = []
    for path in arguments:
        inside = _videos_below(path, out) if path.is_dir() else []
        found += inside or [path]
    pairs, taken = [], set()
    for video in dict.fromkeys(found):
        name, number = f"{video.stem}.predict.mp4", 2
        while name in taken:
            name, number = f"{video.stem}-{number}.predict.mp4", number + 1
        taken.add(name)
        pairs.append((video, out / name))
    return pairs
