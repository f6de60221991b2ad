"""What Fisher vectors cost: encoding, mixture, kernel and SVMs at the size of UCF-101, and stacked Fisher vectors.

Descriptors and vectors are made up; how long any of it takes does not depend on what they say, but for the iterations
of the SVMs. Peers run in the same process on the same arrays: scikit-image's ``fisher_vector`` (where it is installed),
scikit-learn's ``GaussianMixture``, and ``LinearSVC`` on the vectors themselves. Times are CPU seconds, BLAS has one
thread, peak memory is that of a process of its own.

    python -m benchmarks.fisher
"""

import json
import multiprocessing
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from sklearn.mixture import GaussianMixture
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from benchmarks.machine import machine
from han_core.baselines.fisher.codebook import ChannelCodebook, Codebook
from han_core.baselines.fisher.fisherfile import write_vectors
from han_core.baselines.fisher.kernel_svm import linear_kernel, margins
from han_core.baselines.fisher.max_margin import fit_max_margin
from han_core.baselines.fisher.mixture import Mixture, fit_mixture
from han_core.baselines.fisher.principal import principal_directions
from han_core.baselines.fisher.reduction import Projection, fit_pca
from han_core.baselines.fisher.row_store import RowStore
from han_core.baselines.fisher.stacked import LocalFeatures, StackedModel
from han_core.baselines.fisher.stacked_params import StackedParams
from han_core.baselines.fisher.subvolumes import Positions

OUT = Path(__file__).with_suffix(".json")
SIZES = {"trajectory": 30, "hog": 96, "hof": 108, "mbhx": 96, "mbhy": 96}
GAUSSIANS = 256
TRAIN, TEST, CLASSES = 9537, 3783, 101  # UCF-101, split 1
LENGTH, LENGTHS = 2 * GAUSSIANS * 54, 2 * GAUSSIANS * (15 + 48 + 54 + 48 + 48)
"""Of the longest channel's vector, which is the one that is timed, and of all channels."""


def descriptors(count: int, size: int, seed: int = 0) -> np.ndarray:
    """(count, size) float32 in [0, 1]: roots of histograms that sum to 1, correlated as those of real patches are."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(size).random((12, size)) ** 4
    made = random.gamma(0.5, size=(count, 12)) @ mixing + 0.02 * random.random((count, size))
    return np.sqrt(made / made.sum(1, keepdims=True)).astype(np.float32)


def cpu(what: Callable[[], object], repeat: int = 5) -> float:
    """CPU seconds, the best of some runs."""
    spent = []
    for _ in range(repeat):
        began = time.process_time()
        what()
        spent.append(time.process_time() - began)
    return min(spent)


def codebook() -> Codebook:
    """Five channels, K = 256, a few iterations."""
    channels = {}
    for name, size in SIZES.items():
        sample = descriptors(20_000, size, seed=1)
        projection = fit_pca(sample, size // 2)
        channels[name] = ChannelCodebook(projection, fit_mixture(projection(sample), GAUSSIANS, seed=1, iterations=5))
    return Codebook(channels)


def encoding(book: Codebook, count: int) -> dict:
    """Microseconds a trajectory, and how large a clip's file is."""
    clip = {name: descriptors(count, size) for name, size in SIZES.items()}
    by_channel = {name: 1e6 * cpu(lambda n=name: book.encode(n, clip[n])) / count for name in SIZES}
    few = {name: 1e6 * cpu(lambda n=name: book.encode(n, clip[n][:500]), 20) / 500 for name in SIZES}
    with tempfile.TemporaryDirectory() as folder:
        vectors = {name: book.encode(name, clip[name]) for name in SIZES}
        began = time.process_time()
        write_vectors(Path(folder, "c"), clip="c", fingerprint="0" * 64, vectors=vectors, attributes={})
        written = time.process_time() - began
        size = Path(folder, "c").stat().st_size
    return {
        "trajectories": count,
        "microseconds_a_trajectory": sum(by_channel.values()),
        "microseconds_by_channel": by_channel,
        "microseconds_a_trajectory_of_a_clip_of_500": sum(few.values()),
        "kilobytes_a_clip_file": size / 1000,
        "milliseconds_a_clip_file": 1000 * written,
    } | against_scikit_image(book.channels["hog"], clip["hog"])


def against_scikit_image(channel: ChannelCodebook, values: np.ndarray, rounds: int = 5) -> dict:
    """One channel, without the projection, which scikit-image does not do."""
    try:
        from skimage.feature import fisher_vector
    except ImportError:
        return {"scikit_image": "not installed"}
    from han_core.baselines.fisher.vector import fisher_vector as ours
    from han_core.baselines.fisher.vector import statistics as sums

    points, mixture = channel.projection(values), channel.mixture
    peer = _fitted(mixture)
    wide = points.astype(np.float64)
    ratios = [
        cpu(lambda: fisher_vector(wide, peer), 1) / cpu(lambda: ours(sums(points, mixture), mixture), 1)
        for _ in range(rounds)
    ]
    return {"scikit_image_takes_times_as_long": statistics.median(ratios)}


def _fitted(mixture: Mixture) -> GaussianMixture:
    peer = GaussianMixture(len(mixture.weights), covariance_type="diag")
    peer.weights_, peer.means_, peer.covariances_ = mixture.weights, mixture.means, mixture.variances
    peer.precisions_cholesky_ = 1 / np.sqrt(mixture.variances.astype(np.float64))
    return peer


def fitting(count: int, iterations: int) -> dict:
    """A mixture of 256 Gaussians to the 48 dimensions of one channel; run in a process of its own."""
    projection = fit_pca(descriptors(20_000, 96, seed=1), 48)
    parts = [projection(descriptors(20_000, 96, seed=number)) for number in range(-(-count // 20_000))]
    sample = np.concatenate(parts)[:count]
    del parts
    moments: list[float] = []
    with threadpool_limits(1, "blas"):
        began = time.process_time()
        fit_mixture(sample, GAUSSIANS, seed=1, iterations=iterations, on_iteration=lambda *_: moments.append(_now()))
    steps = np.diff(moments)
    return {
        "points": count,
        "start_seconds": moments[0] - began - float(np.median(steps)),
        "seconds_an_iteration": float(np.median(steps)),
        "gigabytes_at_most": _peak() / 1e9,
    }


def against_scikit_learn(count: int, iterations: int = 3) -> dict:
    """An iteration of ``GaussianMixture`` on a part: at full size it takes gigabytes."""
    sample = fit_pca(descriptors(count, 96, seed=1), 48)(descriptors(count, 96, seed=2))
    begun = fit_mixture(sample, GAUSSIANS, seed=1, iterations=0)
    moments: list[float] = []
    fit_mixture(sample, GAUSSIANS, seed=1, iterations=8, on_iteration=lambda *_: moments.append(_now()))
    ours = float(np.median(np.diff(moments)))

    def theirs(rounds: int) -> float:
        peer = GaussianMixture(
            GAUSSIANS, covariance_type="diag", max_iter=rounds, tol=0, init_params="random_from_data", random_state=1,
            means_init=begun.means, weights_init=begun.weights.astype(np.float64) / begun.weights.sum(dtype=np.float64),
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of not having converged
            return cpu(lambda: peer.fit(sample), 2)

    a_round = (theirs(1 + iterations) - theirs(1)) / iterations
    return {"points": count, "seconds_an_iteration": ours, "gaussian_mixture_takes_times_as_long": a_round / ours}


def made_up_vector(number: int, length: int) -> np.ndarray:
    """An improved Fisher vector (length,) float16 of clip ``number``, whose class is ``number`` modulo 101."""
    # A shifted window of one row of noise: as good as new noise, and takes no time to make.
    start = (number * 7919) % length
    label = 1_000_003 + (number % CLASSES) * 10_007 % length
    noise = _NOISE[start : start + length] + 0.5 * _NOISE[label : label + length]
    return (noise / np.float32(np.sqrt(1.25 * length))).astype(np.float16)


_NOISE = np.random.default_rng(0).standard_normal(1_300_000, np.float32)


def kernel_and_svm(train: int, test: int, length: int, classes: int) -> dict:
    """One channel's kernel, then SVMs of some of the classes on it; run in a process of its own."""
    loaders = [lambda n=number: made_up_vector(n, length) for number in range(train + test)]
    with threadpool_limits(1, "blas"):
        began = _now()
        for load in loaders:
            load()
        making = _now() - began
        began = _now()
        kernel = linear_kernel(loaders[:train], loaders[train:])
        kernel_seconds, kernel_peak = _now() - began - making, _peak()
        labels = np.arange(train) % CLASSES
        began = _now()
        # Of the other classes all clips are of one more class: each SVM sees all clips, as it does in earnest.
        few = np.minimum(labels, classes - 1)
        found = margins(kernel[:train], few, kernel[train:], c=100, classes=classes)
        svm_seconds = _now() - began
    truth = np.minimum((np.arange(test) + train) % CLASSES, classes - 1)
    return {
        "training_clips": train,
        "test_clips": test,
        "length": length,
        "kernel_seconds": kernel_seconds,
        "kernel_gigaflops": (train**2 + 2 * train * test) * length / kernel_seconds / 1e9,
        "kernel_gigabytes_at_most": kernel_peak / 1e9,
        "svms": classes,
        "seconds_an_svm": svm_seconds / classes,
        "kernel_and_svm_gigabytes_at_most": _peak() / 1e9,
        "top1_of_made_up_classes": float((found.argmax(1) == truth).mean()),
    }


def against_linear_svc(clips: int, length: int) -> dict:
    """All 101 SVMs of a part of the clips: on the vectors, and by way of the kernel."""
    vectors = np.stack([made_up_vector(number, length) for number in range(clips)])
    labels = np.arange(clips) % 10
    loaders = [lambda v=vector: v for vector in vectors]
    wide = vectors.astype(np.float32)

    def by_kernel() -> None:
        kernel = linear_kernel(loaders)
        margins(kernel, labels, kernel, c=100, classes=10)

    ours = cpu(by_kernel, 3)
    theirs = cpu(lambda: LinearSVC(loss="hinge", C=100, max_iter=20_000).fit(wide, labels).decision_function(wide), 1)
    return {"clips": clips, "classes": 10, "length": length, "linear_svc_takes_times_as_long": theirs / ours}


def stacked(subvolumes: int) -> dict:
    """A clip of 5,000 trajectories and 180 frames, and the fit of the compression; run in a process of its own."""
    params, random = StackedParams(), np.random.default_rng(0)
    sample = descriptors(20_000, 396, seed=1)
    projection = fit_pca(sample, params.local_dimensions, whiten=True)
    local = ChannelCodebook(projection, fit_mixture(projection(sample), params.gaussians, seed=1, iterations=2))
    positions = Positions(random.random((5000, 2)).astype(np.float32), random.integers(7, 180, 5000))
    clip = LocalFeatures(descriptors(5000, 396, seed=2), positions)
    with threadpool_limits(1, "blas"), tempfile.TemporaryDirectory() as folder:
        with RowStore(Path(folder, "rows"), local.length) as rows:
            for number in range(subvolumes):
                rows.append(made_up_vector(number, local.length))
            chosen, labels = np.arange(subvolumes), np.arange(subvolumes) % CLASSES
            began = _now()
            start = principal_directions(rows, chosen, params.reduced, seed=1)
            principal = _now() - began
            how = {"class_penalty": 1e-4, "projection_penalty": 1e-4, "batch": params.batch, "rate": 1.0, "seed": 1}
            began = _now()
            learnt = fit_max_margin(rows, chosen, labels, start, classes=CLASSES, epochs=1, **how)
            epoch = _now() - began
        peak = _peak()
        second = Mixture(
            np.full(256, 1 / 256, np.float32),
            random.standard_normal((256, params.reduced), np.float32),
            np.ones((256, params.reduced), np.float32),
        )
        whitening = Projection(np.zeros(params.reduced, np.float32), np.eye(params.reduced, dtype=np.float32))
        compression = Projection(np.zeros(local.length, np.float32), learnt.projection)
        model = StackedModel(local, compression, whitening, second, params)
        seconds = cpu(lambda: model.encode(clip), 3)
    return {
        "seconds_a_clip_of_5000": seconds,
        "subvolumes_learnt_from": subvolumes,
        "length": local.length,
        "principal_directions_seconds": principal,
        "seconds_an_epoch": epoch,
        "gigabytes_at_most": peak / 1e9,
    }


def alone(what: Callable[..., dict], *arguments: int) -> dict:
    """The result of a function in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(what, arguments)


def _now() -> float:
    return time.process_time()


def _peak() -> float:
    """Bytes, the most that this process ever held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@click.command()
@click.option("--points", default=256_000, show_default=True, help="Of the sample that a mixture is fitted to.")
@click.option("--iterations", default=6, show_default=True, help="Of it that are timed.")
@click.option("--part", default=1.0, show_default=True, help="Of UCF-101's clips that make up the kernel.")
@click.option("--svms", default=12, show_default=True, help="Classes whose SVMs are timed, of 101.")
@click.option("--subvolumes", default=2560, show_default=True, help="That stacked vectors are learnt from, of 30,000.")
@click.option("--out", default=OUT, show_default=True, type=click.Path(dir_okay=False, path_type=Path))
def main(points: int, iterations: int, part: float, svms: int, subvolumes: int, out: Path) -> None:
    """Measure all of it and write JSON."""
    with threadpool_limits(1, "blas"):
        found: dict = {"encoding": encoding(codebook(), 20_000)}
        click.echo(f"encoding: {found['encoding']['microseconds_a_trajectory']:.1f} us a trajectory, five channels")
        found["mixture"] = alone(fitting, points, iterations) | {"part": against_scikit_learn(20_000)}
        click.echo(f"mixture: {found['mixture']['seconds_an_iteration']:.2f} s an iteration of {points:,} points")
        found["svm"] = alone(kernel_and_svm, int(part * TRAIN), int(part * TEST), LENGTH, svms)
        found["svm"]["part"] = against_linear_svc(600, LENGTH)
        found["stacked"] = alone(stacked, subvolumes)
    svm = found["svm"]
    svm["kernel_seconds_of_all_channels"] = svm["kernel_seconds"] * LENGTHS / LENGTH
    click.echo(
        f"kernel: {svm['kernel_seconds']:.0f} s a channel of {LENGTH:,}, {svm['kernel_gigabytes_at_most']:.1f} GB"
    )
    click.echo(
        f"SVMs: {svm['seconds_an_svm']:.2f} s each, {svm['kernel_and_svm_gigabytes_at_most']:.1f} GB with the kernel"
    )
    click.echo(f"stacked: {found['stacked']['seconds_a_clip_of_5000']:.2f} s a clip")
    out.write_text(json.dumps(machine() | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
