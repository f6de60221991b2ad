"""Measure feature cubes: size, reading, dumping, the capacity of a store. Writes benchmarks/cubes.json.

\b
    python benchmarks/cubes.py --store FOLDER --store FOLDER          on a CPU, about three minutes
    python benchmarks/cubes.py --section dump --net FILE --clips FOLDER [--device cuda]

A ``--store`` is a folder of cube files as stage cubes leaves it (data/<dataset>/cubes/<stream>-<split>). For the
section dump, ``--net`` is a net of stage finetune and ``--clips`` the frames or flow that it reads. The section
capacity makes a store of its own. Candidates of the size table are written by h5py and hdf5plugin and read back by
h5py; each clip is one dataset. Sections measured before stay in the file.
"""

import json
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import h5py
import hdf5plugin
import numpy as np
import torch
from machine import machine

from han_core.clipfile.trailer import read_trailer
from han_core.clipfile.writer import ClipFileWriter
from han_core.clips import Clip
from han_core.cubes.cubefile import read_cube, read_sparse, write_cube, write_cubes
from han_core.cubes.sparse import SparseRows
from han_core.cubes.sparse_kernels import unpack
from han_core.cubes.store import CubeStore
from han_core.devices import arithmetic, cores, resolve_precision
from han_core.nets.clip_inputs import read_clip_frames
from han_core.nets.extract import CubeNet
from han_core.nets.net_file import read_net

SECTIONS = ("size", "reading", "capacity", "dump")
SHAPE = (25, 512, 196)
CLIPS = 13_320
ZEROS = {"spatial": 0.946, "temporal": 0.85}

DENSE: dict[str, dict] = {
    "gzip-4, shuffle": {"compression": "gzip", "compression_opts": 4, "shuffle": True},
    "lzf, shuffle": {"compression": "lzf", "shuffle": True},
    "zstd-3": dict(hdf5plugin.Zstd(clevel=3)),
    "zstd-3, shuffle": {**hdf5plugin.Zstd(clevel=3), "shuffle": True},
    "bitshuffle, zstd-3": dict(hdf5plugin.Bitshuffle(cname="zstd", clevel=3)),
    "blosc2 lz4, bitshuffle": dict(hdf5plugin.Blosc2(cname="lz4", clevel=5, filters=hdf5plugin.Blosc2.BITSHUFFLE)),
}


@click.command(help=__doc__)
@click.option("--store", "stores", multiple=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--net", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--clips", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--device", default="cpu", show_default=True)
@click.option("--precision", type=click.Choice(["float32", "tf32", "bfloat16", "float16", "auto"]), default="auto")
@click.option("--section", "sections", multiple=True, type=click.Choice(SECTIONS), help="Only this; repeat for more.")
@click.option("--number", default=16, show_default=True, help="Clips of a store, or of the dump, that are measured.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path(__file__).with_suffix(".json"),
    show_default=True,
)
def main(
    stores: tuple[Path, ...],
    net: Path | None,
    folder: Path | None,
    device: str,
    precision: str,
    sections: tuple[str, ...],
    number: int,
    out: Path,
) -> None:
    results = json.loads(out.read_text()) if out.exists() else {}
    measurements: dict[str, Callable[[], dict]] = {"capacity": capacity}
    if stores:
        measurements["size"] = lambda: {name(store): size(store, number) for store in stores}
        measurements["reading"] = lambda: {name(store): reading(store, number) for store in stores}
    if net and folder:
        measurements["dump"] = lambda: dump(net, folder, torch.device(device), precision, number)
    for section in sections or SECTIONS:
        if section not in measurements:
            continue
        click.echo(f"{section} ...")
        found = {"machine": machine(device), **measurements[section]()}
        # A net is measured on each device, a store keeps what was said of others.
        results.setdefault(section, {}).update({device: found} if section == "dump" else found)
        click.echo(json.dumps(found, indent=1))
        out.write_text(json.dumps(results, indent=1) + "\n")


def name(store: Path) -> str:
    """A store without the machine's folders: dataset and stream."""
    return "/".join(store.resolve().parts[-3:])


def chosen(store: Path, number: int) -> list[Path]:
    """Some clips of a store, spread over its classes."""
    files = sorted(store.glob("*/*.h5"))
    return files[:: max(1, len(files) // number)][:number]


def best(work: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of some runs: what else the machine does only adds."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def size(store: Path, number: int) -> dict:
    """How small the candidates make the cubes of a store, and how fast they are written and read, on one thread."""
    cubes = [read_cube(path) for path in chosen(store, number)]
    raw = sum(cube.nbytes for cube in cubes)
    zeros = float(np.mean([np.mean(cube == 0) for cube in cubes]))
    table = {}
    with tempfile.TemporaryDirectory() as folder:
        for candidate, options in DENSE.items():
            for rows in (8, SHAPE[0]):
                table[f"{candidate}, {rows} frames per chunk"] = _dense(Path(folder), cubes, rows, options)
        table["bit mask zstd-3, values shuffle zstd-3"] = _masked(Path(folder), cubes)
        table["sparse rows (the one chosen)"] = _sparse(Path(folder), cubes)
    return {"clips": len(cubes), "zeros": zeros, "raw_megabytes": raw / 1e6, "candidates": table}


def _figures(cubes: Sequence[np.ndarray], stored: int, write: float, read: float) -> dict:
    raw = sum(cube.nbytes for cube in cubes)
    return {"smaller": raw / stored, "write_MB_s": raw / 1e6 / write, "read_MB_s": raw / 1e6 / read}


def _dense(folder: Path, cubes: Sequence[np.ndarray], rows: int, options: dict) -> dict:
    path = folder / "dense.h5"

    def write() -> None:
        with h5py.File(path, "w") as file:
            for number, cube in enumerate(cubes):
                chunks = (min(rows, len(cube)), *cube.shape[1:])
                file.create_dataset(str(number), data=cube, chunks=chunks, **options)

    def read() -> None:
        with h5py.File(path) as file:
            for number in range(len(cubes)):
                file[str(number)][()]

    spent = best(write, 2), best(read, 2)
    with h5py.File(path) as file:
        stored = sum(file[str(number)].id.get_storage_size() for number in range(len(cubes)))
        assert all((file[str(number)][()] == cube).all() for number, cube in enumerate(cubes)), "not lossless"
    return _figures(cubes, stored, *spent)


def _masked(folder: Path, cubes: Sequence[np.ndarray]) -> dict:
    path, zstd = folder / "masked.h5", dict(hdf5plugin.Zstd(clevel=3))

    def write() -> None:
        with h5py.File(path, "w") as file:
            for number, cube in enumerate(cubes):
                mask = cube.view(np.uint16) != 0
                packed, values = np.packbits(mask), cube[mask]
                file.create_dataset(f"{number}/mask", data=packed, chunks=packed.shape, **zstd)
                file.create_dataset(f"{number}/values", data=values, chunks=values.shape, shuffle=True, **zstd)

    def read() -> None:
        with h5py.File(path) as file:
            for number, cube in enumerate(cubes):
                mask = np.unpackbits(file[f"{number}/mask"][()], count=cube.size).view(bool)
                dense = np.zeros(cube.size, np.float16)
                dense[mask] = file[f"{number}/values"][()]

    spent = best(write, 2), best(read, 2)
    with h5py.File(path) as file:
        parts = [file[f"{number}/{part}"] for number in range(len(cubes)) for part in ("mask", "values")]
        stored = sum(part.id.get_storage_size() for part in parts)
    return _figures(cubes, stored, *spent)


def _sparse(folder: Path, cubes: Sequence[np.ndarray]) -> dict:
    paths = [folder / f"{number}.h5" for number in range(len(cubes))]

    def write() -> None:
        for path, cube in zip(paths, cubes, strict=True):
            path.unlink(missing_ok=True)
            with ClipFileWriter(path, kind="cubes", clip="c", fingerprint="0" * 64) as file:
                write_cube(file, cube)

    def read() -> None:
        for path in paths:
            read_cube(path)

    spent = best(write, 2), best(read, 2)
    assert all((read_cube(path) == cube).all() for path, cube in zip(paths, cubes, strict=True)), "not lossless"
    stored = sum(array.size for path in paths for array in read_trailer(path).arrays.values())
    return _figures(cubes, stored, *spent)


def reading(store: Path, number: int) -> dict:
    """Reading whole clips, page cache warm: ours against h5py with gzip-4 and shuffle; one thread and two."""
    paths = chosen(store, number)
    cubes = [read_cube(path) for path in paths]
    raw = sum(cube.nbytes for cube in cubes) / 1e6
    trailers = [read_trailer(path) for path in paths]
    own = memory_of_each_thread(cubes[0].shape)

    def sparse(index: int) -> None:
        read_sparse(paths[index], trailers[index])

    def dense(index: int) -> None:
        read_sparse(paths[index], trailers[index]).dense()

    def into(index: int) -> None:
        rows = read_sparse(paths[index], trailers[index])
        unpack(rows.counts.reshape(-1), rows.columns, rows.values.view(np.uint16), own())

    with tempfile.TemporaryDirectory() as folder:
        _dense(Path(folder), cubes, SHAPE[0], DENSE["gzip-4, shuffle"])
        with h5py.File(Path(folder) / "dense.h5") as file:
            plain = raw / best(lambda: [file[str(index)][()] for index in range(len(paths))], 3)
    report: dict = {"clips": len(paths), "h5py_gzip4_shuffle_MB_s": plain}
    for kind, work in {"sparse": sparse, "dense, new memory": dense, "dense, into memory at hand": into}.items():

        def half(first: int, work: Callable[[int], None] = work) -> None:
            for _ in range(8):  # long enough that starting two threads does not count
                for index in range(first, len(paths), 2):
                    work(index)

        one, two = [], []
        with ThreadPoolExecutor(2) as pool:
            for _ in range(9):
                one.append(8 * raw / best(lambda half=half: (half(0), half(1)), 1))
                two.append(8 * raw / best(lambda half=half: list(pool.map(half, (0, 1))), 1))
        report[kind] = {
            "one_thread_MB_s": max(one),
            "ratio_to_h5py": max(one) / plain,
            "two_threads_over_one": {
                "best": max(two) / max(one),
                "median": statistics.median(b / a for a, b in zip(one, two, strict=True)),
            },
        }
    report["plain_arithmetic_two_threads_over_one"] = two_threads_over_one()
    return report


def memory_of_each_thread(shape: tuple[int, ...]) -> Callable[[], np.ndarray]:
    """Memory for one dense cube, one per thread."""
    memory = threading.local()

    def own() -> np.ndarray:
        if not hasattr(memory, "bits"):
            memory.bits = np.empty((shape[0] * shape[1], int(np.prod(shape[2:]))), np.uint16)
        return memory.bits

    return own


def two_threads_over_one() -> float:
    """What two threads of compiled arithmetic gain over one on this machine now: it is shared."""
    rows = SparseRows.from_dense(np.ones(SHAPE, np.float16))
    memories = [np.empty((SHAPE[0] * SHAPE[1], SHAPE[2]), np.uint16) for _ in range(2)]

    def work(memory: np.ndarray) -> None:
        for _ in range(40):
            unpack(rows.counts.reshape(-1), rows.columns, rows.values.view(np.uint16), memory)

    one = best(lambda: [work(memory) for memory in memories])
    with ThreadPoolExecutor(2) as pool:
        return one / best(lambda: list(pool.map(work, memories)))


def capacity() -> dict:
    """A store of UCF-101's shape: 13,320 clips, T = 25, both streams. 32 clips per stream are made, the others are hard
    links to them: what is on disk matters to neither the index nor the form in memory."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR", ".")) as root:
        folders = {stream: Path(root) / stream for stream in ZEROS}
        clips = [Clip(f"clip{n:05d}", "", f"class{n % 101:03d}", n % 101, "g", {}) for n in range(CLIPS)]
        for stream, folder in folders.items():
            for number in range(101):
                (folder / f"class{number:03d}").mkdir(parents=True)
            made = []
            for number in range(32):
                cube = rng.random((*SHAPE[:2], 14, 14), np.float32).astype(np.float16) + np.float16(0.1)
                cube[rng.random(cube.shape, np.float32) < ZEROS[stream]] = 0
                made.append(folder / f"{number}.h5")
                with ClipFileWriter(made[-1], kind="cubes", clip=str(number), fingerprint="0" * 64) as file:
                    write_cube(file, cube)
            for number, clip in enumerate(clips):
                os.link(made[number % 32], folder / clip.class_name / f"{clip.name}.h5")
        start = time.perf_counter()
        store = CubeStore(folders, clips)
        seconds = time.perf_counter() - start
        few = CubeStore(folders, clips[:64])
        loaded = few.load()
        assert few.bytes_in_memory == sum(values.bytes for values in loaded.arrays.values())
        per_frame = store.bytes_in_memory / (CLIPS * SHAPE[0] * 2)
    return {
        "clips": CLIPS,
        "streams": 2,
        "zeros": ZEROS,
        "index_seconds": seconds,
        "kilobytes_a_frame_and_stream": per_frame / 1024,
        "gigabytes_in_memory": store.bytes_in_memory / 1e9,
    }


def dump(net_path: Path, folder: Path, device: torch.device, precision: str, number: int) -> dict:
    """Clip file to cube file, overlapped as in stage cubes, against a bare loop of the net over the same images."""
    net, metadata = read_net(net_path)
    stack, convention = int(metadata["stack"]), metadata["input"]
    precision = resolve_precision(precision, device)
    paths = chosen(folder, number)
    with CubeNet(net, convention, precision=precision, device=device) as made:
        clips = [read_clip_frames(path, SHAPE[0], stack=stack) for path in paths]
        images = sum(len(clip) for clip in clips)
        batches = [made._input(clip, slice(0, made.batch)) for clip in clips]

        def bare() -> None:
            with arithmetic(precision):
                for batch in batches:
                    made._net.extract(batch, made.layers)
            if device.type == "cuda":
                torch.cuda.synchronize()

        def stage() -> None:
            target = Path(tempfile.mkdtemp())

            def one(path: Path) -> None:
                clip = read_clip_frames(path, SHAPE[0], stack=stack, memory=made.memory)
                facts = {"clip": path.stem, "fingerprint": "0" * 64, "layer": made.layers[0], "fc": made.layers[1]}
                values = made.compute(clip)
                write_cubes(target / path.name, frames=clip.frames, values=values, attributes={}, **facts)

            with ThreadPoolExecutor(3 if device.type == "cpu" else max(3, cores())) as pool:
                list(pool.map(one, paths))
            shutil.rmtree(target)

        with torch.inference_mode():
            bare()
        spent = [(best(bare, 1), best(stage, 1)) for _ in range(3)]
    return {
        "stream": metadata["stream"],
        "precision": precision,
        "images": images,
        "bare_images_s": images / min(b for b, _ in spent),
        "stage_images_s": images / min(s for _, s in spent),
        "stage_over_bare": statistics.median(b / s for b, s in spent),
    }


if __name__ == "__main__":
    main()
