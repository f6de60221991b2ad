"""What stage decode does with each clip, without the stage: run in a workspace, where benchmarks.overhead copies it.

\b
    pictures    decode, encode, and write the JPEGs into a plain file
    files       decode, encode, and write the clip file, with its checksums, under a plain name
    parts       all that a worker and the stage do with a clip, in one process, and the seconds of each part as JSON

Works with any revision of the project that has these modules; so it uses little of it.
"""

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import cv2

from han_core.cache import store
from han_core.clips import read_clips
from han_core.images.codec import encode_image
from han_core.video.decode import probe, read_video
from pipeline.decode import Arguments, decode_clip
from pipeline.execution import jobs
from pipeline.params import load_params
from pipeline.paths import Paths, clip_file

OUTPUT = Path("plain")


def pictures(task: jobs.ClipTask) -> None:
    """Decode, encode and write plainly."""
    arguments = task.arguments
    probe(arguments.video)
    limits = {"damaged_share": arguments.damaged_share, "time_limit": arguments.time_limit}
    with read_video(arguments.video, short_side=arguments.short_side, **limits) as frames:
        encoded = [encode_image(cv2.cvtColor(f, cv2.COLOR_RGB2BGR), "jpeg", arguments.quality) for f in frames]
    (OUTPUT / f"{task.clip.name}.jpegs").write_bytes(b"".join(encoded))


def files(task: jobs.ClipTask) -> None:
    """Decode, encode and write a clip file."""
    decode_clip(task, OUTPUT / f"{task.clip.name}.h5")


def parts(tasks: list[jobs.ClipTask]) -> dict[str, float]:
    """Seconds of all, and of each part; parts that hold others count them, too."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(name: str, function: Callable) -> Callable:
        def wrapper(*args: object, **more: object) -> object:
            with clock(name):
                return function(*args, **more)

        return wrapper

    @contextmanager
    def clock(name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds[name] += time.perf_counter() - began

    for name in ("_flush", "check_identity", "verify_clip_file", "verify_written", "claimed_checksum", "make_folder"):
        if hasattr(store, name):
            setattr(store, name, timed(f"publish: {name}", getattr(store, name)))
    for name in ("link", "utime", "replace", "symlink"):
        setattr(os, name, timed(f"os.{name}", getattr(os, name)))
    for name in ("chmod", "unlink"):
        setattr(Path, name, timed(f"Path.{name}", getattr(Path, name)))
    cached = store.ClipCache
    cached._publish = timed("publish", cached._publish)
    cached.find = timed("find", cached.find)
    cached.link = timed("link", cached.link)
    if hasattr(store, "Claims"):
        for name in ("take", "drop", "held_by_another"):
            setattr(store.Claims, name, timed("claims", getattr(store.Claims, name)))
    cache = cached.from_environment()
    work = timed("decode, encode, write", decode_clip)
    with clock("all"):
        for task in tasks:
            cached(cache.root).find("frames", task.fingerprint)
            with cache.create("frames", task.fingerprint) as path:
                if hasattr(cache, "claims"):
                    cache.claims.take("frames", task.fingerprint)
                work(task, path)
            if hasattr(cache, "claims"):
                cache.claims.drop("frames", task.fingerprint)
            cache.link("frames", task.fingerprint, clip_file(OUTPUT, task.clip.class_name, task.clip.name))
    return dict(seconds)


def tasks_of_stage() -> list[jobs.ClipTask]:
    """One for each clip of the table; fingerprints are made up."""
    params = load_params("params.yaml")
    root = params.dataset.videos.absolute()
    clips = read_clips(Paths.of(params).clips).clips
    settings = dict(params.decode)
    return [jobs.ClipTask(clip, f"{clip.sha256}-{'0' * 16}", Arguments(root / clip.path, **settings)) for clip in clips]


def main(what: str) -> None:
    """Run one of the three."""
    tasks = tasks_of_stage()
    OUTPUT.mkdir()
    if what == "parts":
        cv2.setNumThreads(1)
        print(json.dumps(parts(tasks)))
        return
    with get_context("spawn").Pool(2, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        for _ in pool.imap_unordered({"pictures": pictures, "files": files}[what], tasks, chunksize=4):
            pass
        pool.close()
        pool.join()  # so that their time counts as this process's


if __name__ == "__main__":
    main(sys.argv[1])
