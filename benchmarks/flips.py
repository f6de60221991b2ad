"""Flip single bits of finished files and see who notices. Writes benchmarks/flips.json.

\b
    python -m benchmarks.flips --flips 300 --seed 1          about 4 minutes on two cores

A small project is run to its end in a scratch folder. Then, for every kind of file, copies of files drawn at random get
one bit changed, and are used through the readers of the stages that use them:

\b
    told         a plain error (of a checkpoint: a line in the log, and the run starts from the beginning)
    no effect    what was read is what was written
    silent       something else was read, and nothing was said: must not be
    traceback    any other error: must not be
    verified     `han cache verify` finds it, of clip files: must be all of them
"""

import hashlib
import json
import logging
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import nn

from benchmarks.machine import machine
from benchmarks.workspace import NAME, Workspace, copied, scratch_folder, scratch_option, small_params, tiny_videos
from han_core.baselines.cnn_lstm.model_file import load_cnn_lstm
from han_core.baselines.fisher.codebook import ChannelCodebook, codebook_identity, read_codebook
from han_core.baselines.fisher.fisherfile import read_half
from han_core.baselines.fisher.stacked_file import read_stacked
from han_core.baselines.trajectories.trajectories import CHANNELS
from han_core.baselines.trajectories.trajectoryfile import read_facts, read_trajectories
from han_core.baselines.two_stream.scorefile import read_scores
from han_core.cache.verify import verify_clip_file
from han_core.clipfile.reader import ClipFile
from han_core.clipfile.trailer import ClipFileError, read_trailer
from han_core.clips import Clip, read_clips
from han_core.cubes.store import CubeStore
from han_core.errors import HanError
from han_core.flow.flowfile import read_flow_levels
from han_core.han.model_file import load_model
from han_core.images.frames import read_frames
from han_core.nets.clip_inputs import FlowClips, FrameClips
from han_core.nets.net_file import read_net
from han_core.nets.weights import resolve_convention
from han_core.predictions import read_attention, read_predictions
from han_core.runs.checkpoint import Checkpoint
from pipeline.execution.ledger import read_failures

COLUMNS = ("told", "no effect", "silent", "traceback", "verified", "missed")


@dataclass(frozen=True)
class Kind:
    """One kind of file, and how stages use it."""

    files: tuple[Path, ...]
    use: Callable[[Path], str]
    """Digest of all that is read from a copy, which may have another name; "" where the log says that it is damaged.

    Raises:
        HanError: it is damaged.
    """
    name: str = ""
    """That a copy must have; "" where any will do."""


def kinds_of(workspace: Workspace) -> dict[str, Kind]:
    """Every kind of file that a finished project holds."""
    data, models = workspace.path / "data" / NAME, workspace.path / "models" / NAME
    classes = read_clips(data / "clips.csv").classes
    predictions = data / "predictions"
    checkpoint = workspace.path / "checkpoint.safetensors"
    write_checkpoint(checkpoint)
    return {
        "frames": Kind(tuple(sorted(data.glob("frames/*/*.h5"))), use_frames),
        "flow": Kind(tuple(sorted(data.glob("flow/*/*.h5"))), use_flow),
        "cubes": Kind(tuple(sorted(data.glob("cubes/*/*/*.h5"))), use_cubes),
        "scores": Kind(tuple(sorted(data.glob("scores/*/*/*.h5"))), use_scores),
        "trajectories": Kind(tuple(sorted(data.glob("trajectories/*/*.h5"))), use_trajectories),
        "Fisher vectors": Kind(tuple(sorted(data.glob("fisher/*/*/*.h5"))), use_vectors),
        "codebook": Kind(tuple(sorted(models.glob("codebooks/fisher-*"))), use_codebook),
        "stacked model": Kind(tuple(sorted(models.glob("codebooks/stacked-*"))), use_stacked),
        "CNN + LSTM": Kind(tuple(sorted(models.glob("cnn_lstm/*"))), use_cnn_lstm),
        "net": Kind(tuple(sorted(models.glob("nets/*"))), use_net),
        "HAN": Kind(tuple(sorted(models.glob("han/*"))), use_han),
        "checkpoint": Kind((checkpoint,), use_checkpoint),
        "attention maps": Kind(tuple(sorted(predictions.glob("*/*.attention.safetensors"))), use_attention),
        "predictions": Kind(
            tuple(sorted(predictions.glob("*/*_*.csv")) + sorted(predictions.glob("han*/han.csv"))),
            lambda path: _digest(read_predictions(path, classes)),
        ),
        "clips.csv": Kind((data / "clips.csv",), lambda path: _digest(read_clips(path)), "clips.csv"),
        "failures.csv": Kind(
            tuple(sorted(data.glob("*/failures.csv"))),
            lambda path: _digest(sorted(read_failures(path.parent).items())),
            "failures.csv",
        ),
    }


def use_frames(path: Path) -> str:
    """As stages flow, finetune, cubes and baselines do."""
    clips = FrameClips([path], [0])
    drawn = [clips.at(0, number) for number in range(clips.length(0))]
    with ClipFile(path) as file:
        size = file.attributes["width"], file.attributes["height"]
    return _digest(read_trailer(path).content, read_frames(path), drawn, size)


def use_flow(path: Path) -> str:
    """As stages finetune, cubes and report do."""
    clips = FlowClips([path], [0], stack=2)
    drawn = [clips.at(0, number) for number in range(clips.length(0))]
    with ClipFile(path) as file:
        bound = file.attributes["bound"]
    return _digest(read_trailer(path).content, read_flow_levels(path), drawn, bound)


def use_cubes(path: Path) -> str:
    """As stages train, classify, baselines and report do: both kinds of features, frames, and how they were made."""
    clip = Clip(name=path.stem, class_name=path.parent.name, label=0, group="", path="", roles={})
    read = []
    for array in ("cubes", "fc7"):
        store = CubeStore({"spatial": path.parent.parent}, [clip], array=array)
        read += [store.read(0)["spatial"], store.frames(), store.attributes("spatial"), store.contents()]
    return _digest(*read)


def use_scores(path: Path) -> str:
    """As stage two-stream does."""
    return _digest(read_trailer(path).content, read_scores(path))


def use_trajectories(path: Path) -> str:
    """As stages codebook, fisher and stacked do."""
    found = read_trajectories(path)
    values = [found.points, found.start, found.scale, *(found.channel(name) for name in CHANNELS)]
    return _digest(read_trailer(path).content, read_facts(path), *values)


def use_vectors(path: Path) -> str:
    """As the stages of SVMs do."""
    return _digest(read_trailer(path).content, *(read_half(path, channel) for channel in CHANNELS))


def use_codebook(path: Path) -> str:
    """As stage fisher does."""
    codebook, metadata = read_codebook(path)
    return _digest(metadata, codebook_identity(metadata), *(_channel(one) for one in codebook.channels.values()))


def use_stacked(path: Path) -> str:
    """As stage stacked does."""
    model, metadata = read_stacked(path)
    fitted = [_channel(model.local), vars(model.compression), vars(model.whitening), vars(model.second)]
    return _digest(metadata, model.params, *fitted)


def _channel(codebook: ChannelCodebook) -> dict[str, object]:
    return {**vars(codebook.projection), **vars(codebook.mixture)}


def use_cnn_lstm(path: Path) -> str:
    """As stage classify-cnn-lstm does."""
    trained = load_cnn_lstm(path)
    return _digest(trained.model.state_dict(), (trained.classes, trained.source, trained.model.config))


def use_net(path: Path) -> str:
    """As stages cubes and scores do."""
    net, metadata = read_net(path)
    return _digest(net.state_dict(), metadata, resolve_convention(str(path)))


def use_han(path: Path) -> str:
    """As stage classify does."""
    trained = load_model(path)
    facts = (trained.variant, trained.classes, trained.source, trained.recipe, trained.model.config)
    return _digest(trained.model.state_dict(), facts)


def use_attention(path: Path) -> str:
    """As stages evaluate and report do."""
    attention = read_attention(path)
    return _digest(attention.maps, attention.frames)


def use_checkpoint(path: Path) -> str:
    """As stages finetune and train do."""
    model, optimizer = _run()
    progress = Checkpoint(path).restore(model, optimizer)
    return "" if progress is None else _digest(progress, model.state_dict(), optimizer.state_dict()["state"])


def write_checkpoint(path: Path) -> None:
    """The state of a small run after a step."""
    model, optimizer = _run()
    model(torch.ones(2, 16)).square().mean().backward()
    optimizer.step()
    Checkpoint(path, seconds=0).save(model, optimizer, {"epoch": 3, "curve": [0.1, 0.2]})


def _run() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 64), nn.Linear(64, 10))
    return model, torch.optim.Adam(model.parameters(), 1e-3)


def flip(kind: Kind, folder: Path, flips: int, rng: random.Random) -> tuple[Counter, dict[str, list[str]]]:
    """Flip bits of copies and use them.

    Args:
        folder: for the copies.

    Returns:
        How many flips ended how; and by way of ending the errors, without numbers.
    """
    counts: Counter = Counter()
    words: dict[str, list[str]] = defaultdict(list)
    for _ in range(flips):
        path = rng.choice(kind.files)
        # Readers find the clip's name and class, or the kind of table, in the path.
        copy = folder / path.parent.parent.name / path.parent.name / (kind.name or path.name)
        clean = _sound_copy(kind, path, copy)
        bit = rng.randrange(8 * copy.stat().st_size)
        _flip(copy, bit)
        try:
            found = kind.use(copy)
            state = "told" if not found else "no effect" if found == clean else "silent"
            word = f"bit {bit} of {path.name}"
        except HanError as error:
            state, word = "told", str(error)
        except Exception as error:
            state, word = "traceback", f"bit {bit} of {path.name}: {type(error).__name__}: {error}"
        counts[state] += 1
        if state in ("silent", "traceback"):
            words[state].append(word)
        else:
            words[state].append(re.sub(r"\d+", "0", word.replace(str(folder), "")))
        if copy.suffix == ".h5":
            counts["verified" if _is_found(copy) else "missed"] += 1
        _flip(copy, bit)
    return counts, words


_CLEAN: dict[Path, str] = {}


def _sound_copy(kind: Kind, path: Path, copy: Path) -> str:
    """Copy a file unless that was done; digest of what is read from it."""
    if path not in _CLEAN or not copy.exists() or kind.name:
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.unlink(missing_ok=True)
        copy.write_bytes(path.read_bytes())
        _CLEAN[path] = kind.use(copy)
    return _CLEAN[path]


def _flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))


def _is_found(path: Path) -> bool:
    try:
        verify_clip_file(path)
    except ClipFileError:
        return True
    return False


def _digest(*values: object) -> str:
    digest = hashlib.sha256()
    for value in values:
        for part in _parts(value):
            digest.update(part)
    return digest.hexdigest()


def _parts(value: object) -> Iterable[bytes]:
    """Values as bytes that differ where they do."""
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield repr(name).encode()
            yield from _parts(item)
    elif isinstance(value, (list, tuple)) and any(isinstance(item, (np.ndarray, torch.Tensor)) for item in value):
        for item in value:
            yield from _parts(item)
    else:
        yield repr(value).encode()


def finished_workspace(folder: Path) -> Workspace:
    """A small project, run to its end; one of its videos cannot be decoded."""
    params = small_params("videos")
    params["dataset"]["allowed_failures"] = 1
    params["trajectories"].update(source=["flow"], length=6)
    params["fisher"].update(splits=[1], gaussians=2, samples=500, iterations=3)
    params["stacked"].update(
        splits=[1], samples=500, local_dimensions=8, gaussians=2, reduced=4, second_gaussians=2, frames=[8], least=2,
        iterations=3, epochs=1,
    )  # fmt: skip
    params["cnn_lstm"].update(splits=[1], units=8, layers=2, epochs=2)
    workspace = copied(folder / "project", folder / "cache", params)
    videos = workspace.path / "videos"
    tiny_videos(videos, 2, 4)
    sound = (videos / "class0" / "c0n0000.avi").read_bytes()
    (videos / "class0" / "broken.avi").write_bytes(sound[: len(sound) // 4])
    workspace.run("dvc", "repro")
    return workspace


@click.command(help=__doc__)
@click.option("--flips", default=300, show_default=True, help="Of each kind of file.")
@click.option("--seed", default=1, show_default=True)
@scratch_option
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("benchmarks/flips.json"))
def main(flips: int, seed: int, scratch: Path | None, out: Path) -> None:
    """Run the campaign and print a table."""
    logging.getLogger("han_core").setLevel(logging.ERROR)
    began = time.monotonic()
    total: dict[str, Counter] = {}
    ways: dict[str, dict[str, list]] = {}
    with scratch_folder(scratch) as folder:
        kinds = kinds_of(finished_workspace(folder))
        for name, kind in kinds.items():
            total[name], words = flip(kind, folder / "copies" / name, flips, random.Random(f"{seed} {name}"))
            ways[name] = {state: Counter(found).most_common(5) for state, found in words.items()}
            click.echo(f"{name}: {dict(total[name])}", err=True)
    click.echo("| kind | flips | " + " | ".join(COLUMNS) + " |\n|" + " --- |" * (len(COLUMNS) + 2))
    for name, counts in [*total.items(), ("all", sum(total.values(), Counter()))]:
        row = (sum(counts[column] for column in COLUMNS[:4]), *(counts[column] for column in COLUMNS))
        click.echo(f"| {name} | " + " | ".join(map(str, row)) + " |")
    bad = sum(counts["silent"] + counts["traceback"] + counts["missed"] for counts in total.values())
    report = {"machine": machine("cpu"), "seed": seed, "sound": not bad, "kinds": total, "words": ways}
    out.write_text(json.dumps(report | {"seconds": round(time.monotonic() - began)}, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
