"""Measure what becomes of damaged videos, and whether sound ones are left in peace. Writes benchmarks/damage.json.

\b
    python -m benchmarks.damage --data FOLDER          about one minute on two cores

FOLDER holds UCF-101 (``ucf101_mini``), UT-Interaction (``ut_interaction``) and the odd videos (``odd_videos``). A dozen
of them, and re-encoded copies in other containers and codecs, are damaged in ten ways, one each; every file is then
decoded as stage ``decode`` does and its frames are compared with those of its source:

\b
    refused    a plain error: it would be a row of the failure ledger
    counted    frames come out, and damage is counted
    silent     frames come out, and nothing is said
    wrong      of all: a frame differs by more than 3 grey levels in the mean from the source's, or is missing
"""

import json
import random
import time
from collections import Counter, defaultdict
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np

from benchmarks.machine import machine
from han_core.devices import cores
from han_core.errors import HanError
from han_core.video.decode import read_video
from pipeline.execution.jobs import died
from pipeline.execution.local import with_processes
from tests.make_videos import encode

KINDS = {
    "one bit": 18, "twenty bits": 14, "zeros": 13, "cut off": 13, "head cut off": 8, "swapped blocks": 9,
    "another video behind": 6, "header bytes": 11, "not a video": 5, "inserted bytes": 3,
}  # fmt: skip
"""Kind of damage -> its share in per cent."""
ENCODED = {
    "mkv": ("libx264", "yuv420p"), "webm": ("libvpx-vp9", "yuv420p"), "mpg": ("mpeg2video", "yuv420p"),
    "flv": ("flv1", "yuv420p"), "mov": ("mpeg4", "yuv420p"), "ts": ("libx264", "yuv420p"),
}  # fmt: skip
LIMIT = 60.0
"""Seconds of decoding after which a file counts as a hang."""


def damaged(raw: bytes, kind: str, rng: random.Random, others: list[Path], suffix: str) -> bytes:
    """The bytes of a file after one kind of damage."""
    size, b = len(raw), bytearray(raw)
    match kind:
        case "one bit" | "twenty bits":
            for _ in range(1 if kind == "one bit" else 20):
                bit = rng.randrange(8 * size)
                b[bit // 8] ^= 1 << bit % 8
        case "zeros":
            length = rng.choice([64, 512, 4096, 16384])
            start = rng.randrange(max(1, size - length))
            b[start : start + length] = bytes(min(length, size - start))
        case "cut off":
            del b[rng.randrange(1, size) :]
        case "head cut off":
            del b[: rng.randrange(1, size // 2)]
        case "swapped blocks":
            length = rng.choice([512, 4096])
            one, other = rng.randrange(size // 2 - length), rng.randrange(size // 2, size - length)
            b[one : one + length], b[other : other + length] = b[other : other + length], b[one : one + length]
        case "another video behind":
            b += rng.choice(others).read_bytes()
        case "header bytes":
            start = raw.find(b"moov") if suffix in (".mp4", ".mov") else 0
            span = min(size - start, 2000 if start else 512)
            for _ in range(rng.randint(1, 8)):
                b[start + rng.randrange(span)] = rng.randrange(256)
        case "not a video":
            b = bytearray(rng.choice([b"hello\n" * 50, b"", rng.randbytes(5000), b"#EXTM3U\nother.avi\n"]))
        case "inserted bytes":
            place = rng.randrange(size)
            b[place:place] = rng.randbytes(rng.randint(1, 5000))
    return bytes(b)


@cache
def reference(path: Path) -> np.ndarray:
    """Small frames of a sound video, (N, h, w, 3)."""
    return np.stack(list(read_video(path, short_side=64, damaged_share=1)))


def look(task: tuple[Path, Path], damaged_share: float) -> dict:
    """Decode one damaged file and compare it with its source."""
    path, source = task
    frames = read_video(path, short_side=64, damaged_share=damaged_share, time_limit=LIMIT)
    pictures, error = [], ""
    began = time.monotonic()
    try:
        pictures.extend(frames)
    except HanError as refused:
        error = str(refused)
    wanted = reference(source)
    wrong = len(pictures) < len(wanted) or (bool(pictures) and pictures[0].shape != wanted.shape[1:])
    if not wrong:
        wrong = any(np.abs(one.astype(int) - other).mean() > 3 for one, other in zip(pictures, wanted, strict=False))
    state = "refused" if error else "counted" if frames.damage else "silent"
    return {"state": state, "wrong": wrong, "error": error, "seconds": time.monotonic() - began}


def sources(data: Path, made: Path) -> list[Path]:
    """Small videos of many kinds."""
    small = sorted((data / "ucf101_mini").rglob("*.avi"), key=lambda path: path.stat().st_size)[:6]
    found = [path for path in sorted((data / "odd_videos").glob("*.mp4")) if "kinetics" not in path.name] + small
    frames = np.stack(list(read_video(small[3])))
    for suffix, (codec, pixels) in ENCODED.items():
        found.append(encode(made / f"base.{suffix}", frames, codec=codec, pixels=pixels))
    return found


@click.command(help=__doc__)
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--files", default=1000, show_default=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--damaged-share", default=0.05, show_default=True)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("benchmarks/damage.json"))
def main(data: Path, files: int, seed: int, damaged_share: float, out: Path) -> None:
    """Run both parts and print a table."""
    rng = random.Random(seed)
    with TemporaryDirectory() as folder:
        originals = sources(data, Path(folder))
        tasks, kind_of = [], {}
        for kind, share in KINDS.items():
            for number in range(files * share // 100):
                source = rng.choice(originals)
                path = Path(folder) / f"{kind.replace(' ', '_')}_{number}{source.suffix}"
                path.write_bytes(damaged(source.read_bytes(), kind, rng, originals, source.suffix))
                tasks.append((path, source))
                kind_of[path] = kind
        counts: dict[str, Counter] = defaultdict(Counter)
        silent = []
        for task, future in with_processes(partial(look, damaged_share=damaged_share), tasks, cores()):
            row = counts[kind_of[task[0]]]
            if died(future):
                row["crashed"] += 1
                continue
            found = future.result()
            row[found["state"]] += 1
            row["hung"] += "time_limit" in found["error"]
            row["wrong"] += found["wrong"]
            row["wrong and told"] += found["wrong"] and found["state"] != "silent"
            if found["wrong"] and found["state"] == "silent":
                silent.append(task[0].name)
        sound = sorted({*originals, *data.glob("u*/**/*.avi"), *(data / "odd_videos").glob("*.[am][vp][i4]")})
        alarms = [path.name for path in sound if _alarmed(path)]
    total = sum(counts.values(), Counter())
    columns = ["refused", "counted", "silent", "wrong", "wrong and told", "hung", "crashed"]
    click.echo("| damage | files | " + " | ".join(columns) + " |\n|" + " --- |" * (len(columns) + 2))
    for kind, row in [*counts.items(), ("all", total)]:
        number = row["refused"] + row["counted"] + row["silent"] + row["crashed"]
        click.echo(f"| {kind} | {number} | " + " | ".join(str(row[column]) for column in columns) + " |")
    share = total["wrong and told"] / max(1, total["wrong"])
    click.echo(f"wrong and told: {share:.1%}; false alarms: {len(alarms)} of {len(sound)} sound files {alarms[:5]}")
    report = {"machine": machine("cpu"), "seed": seed, "damaged_share": damaged_share, "sound": len(sound)}
    report |= {"false_alarms": alarms, "told": share, "silent": sorted(silent), "kinds": counts}
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _alarmed(path: Path) -> bool:
    frames = read_video(path, damaged_share=1)
    return not all(True for _ in frames) or bool(frames.damage)


if __name__ == "__main__":
    main()
