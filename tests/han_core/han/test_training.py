"""Learning itself, on toy problems in seconds: each can be solved by one part of the model only."""

import os

import pytest
import torch
import torch.multiprocessing

from han_core.cubes.sparse import SparseCubes
from han_core.cubes.store import MemoryFeatures, glimpse_statistics
from han_core.han.config import HANConfig
from han_core.han.model import HAN
from han_core.han.training import Epoch, TrainingError, TrainingSchedule, classify, make_optimizer, train
from han_core.runs.checkpoint import Checkpoint
from han_core.runs.processes import processes

CLIPS, FRAMES, CHANNELS, REGIONS = 64, 6, 4, 5
BOTH = ("spatial", "temporal")
SCHEDULE = TrainingSchedule(
    epochs=60, batch=32, optimizer="adam", learning_rate=0.02, eps=1e-8, standardize=True, seed=3
)


def noise(seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (2 * CLIPS, FRAMES, CHANNELS, REGIONS)
    cubes = {s: 0.3 * torch.randn(shape, generator=generator) for s in BOTH}
    labels = torch.arange(2 * CLIPS) % 2
    return cubes, labels


def halves(cubes, labels):
    """The first half to learn from, the second to be scored on."""
    return (
        MemoryFeatures({s: c[:CLIPS] for s, c in cubes.items()}, labels[:CLIPS]),
        MemoryFeatures({s: c[CLIPS:] for s, c in cubes.items()}, labels[CLIPS:]),
    )


def accuracy(train_set, test_set, streams=BOTH, attention="location", schedule=SCHEDULE, **changes):
    torch.manual_seed(0)
    config = HANConfig(
        streams=streams,
        classes=2,
        channels=CHANNELS,
        regions=REGIONS,
        lstm_size=8,
        layers=2,
        skip=2,
        dropout=0.1,
        attention=attention,
        **changes,
    )
    model = HAN(config)
    train_set, test_set = (MemoryFeatures({s: f.arrays[s] for s in streams}, f.labels) for f in (train_set, test_set))
    train(model, train_set, schedule)
    return (classify(model, test_set)[0].argmax(1) == test_set.labels).float().mean().item(), model


def order_problem():
    """Channel 0 then channel 1, or the other way round: the same frames in another order."""
    cubes, labels = noise(1)
    half = FRAMES // 2
    for clip, label in enumerate(labels.tolist()):
        cubes["spatial"][clip, :half, label] += 1
        cubes["spatial"][clip, half:, 1 - label] += 1
    return halves(cubes, labels)


def region_problem():
    """The class is the sign of region 2; region 4 shows the opposite, so the mean over the regions tells nothing."""
    cubes, labels = noise(2)
    sign = (2 * labels - 1).view(-1, 1, 1).float()
    for stream in BOTH:
        cubes[stream][..., 2] += sign
        cubes[stream][..., 4] -= sign
        cubes[stream] -= cubes[stream].mean(dim=3, keepdim=True)
    return halves(cubes, labels)


def motion_problem():
    """Only the temporal stream tells the class."""
    cubes, labels = noise(3)
    cubes["temporal"][:, :, 0] += (2 * labels - 1).view(-1, 1, 1).float()
    return halves(cubes, labels)


def test_order_is_learnt_and_is_what_was_learnt():
    train_set, test_set = order_problem()
    top1, model = accuracy(train_set, test_set)
    assert top1 > 0.95
    backwards = MemoryFeatures({s: c.flip(1) for s, c in test_set.arrays.items()}, test_set.labels)
    assert (classify(model, backwards)[0].argmax(1) == test_set.labels).float().mean() < 0.1


def test_only_attention_finds_the_region():
    train_set, test_set = region_problem()
    top1, model = accuracy(train_set, test_set)
    assert top1 > 0.95
    maps = model(test_set.batch(range(CLIPS))).attention[:, 1:].mean(dim=(0, 1))
    assert (maps[2] - maps[4]).abs() > 0.3
    assert accuracy(train_set, test_set, attention="uniform")[0] < 0.7


def test_a_single_stream_cannot_use_the_other():
    train_set, test_set = motion_problem()
    assert accuracy(train_set, test_set)[0] > 0.95
    assert accuracy(train_set, test_set, streams=("temporal",))[0] > 0.95
    assert accuracy(train_set, test_set, streams=("spatial",))[0] < 0.7


@pytest.mark.parametrize("changes", [{"attention": "content"}, {"initial_state": "mean"}], ids=str)
def test_options_learn_too(changes):
    train_set, test_set = motion_problem()
    assert accuracy(train_set, test_set, **{"attention": "location", **changes})[0] > 0.9


def test_the_same_seed_gives_the_same_weights():
    train_set, test_set = motion_problem()
    short = TrainingSchedule(epochs=2, batch=16, seed=5)
    first, second = (accuracy(train_set, test_set, schedule=short)[1].state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = accuracy(train_set, test_set, schedule=TrainingSchedule(epochs=2, batch=16, seed=6))[1].state_dict()
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_validation_clips_are_reported_and_never_learnt_from():
    train_set, test_set = motion_problem()
    reports: list[Epoch] = []
    states = []
    for validation in (None, test_set):
        torch.manual_seed(0)
        model = HAN(HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=8, skip=2))
        train(
            model,
            train_set,
            TrainingSchedule(epochs=3, batch=16),
            validation=validation,
            on_epoch=lambda epoch, pace: reports.append(epoch),
        )
        states.append(model.state_dict())
    assert [e.validation_top1 is None for e in reports] == [True] * 3 + [False] * 3
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_loss_that_is_not_finite_stops_in_plain_words():
    train_set, _ = motion_problem()
    train_set.arrays["spatial"][0, 0, 0, 0] = float("nan")
    model = HAN(HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=8))
    with pytest.raises(TrainingError, match="epoch 1: the loss is nan"):
        train(model, train_set, TrainingSchedule(epochs=1, standardize=False))


def test_glimpse_statistics_are_those_of_the_mean_over_regions():
    train_set, _ = motion_problem()
    for cube in train_set.arrays.values():
        cube += torch.linspace(0, 3, CLIPS).view(-1, 1, 1, 1)  # so that regions vary together
    mean, deviation = glimpse_statistics(train_set, batch=7)
    for n, stream in enumerate(BOTH):
        pooled = train_set.arrays[stream].double().mean(3).flatten(0, 1)
        torch.testing.assert_close(mean[n].double(), pooled.mean(0), atol=1e-6, rtol=0)
        torch.testing.assert_close(deviation[n].double(), pooled.std(0, correction=0), atol=1e-6, rtol=0)


def test_regions_that_cancel_out_are_not_blown_up():
    train_set, _ = region_problem()
    _, deviation = glimpse_statistics(train_set)
    for n, stream in enumerate(BOTH):
        regions = train_set.arrays[stream].double().permute(2, 0, 1, 3).flatten(1)
        expected = regions.std(1, correction=0) / REGIONS**0.5
        torch.testing.assert_close(deviation[n].double(), expected, atol=1e-5, rtol=0)


def test_adadelta_takes_zeilers_constants():
    optimizer = make_optimizer(torch.nn.Linear(1, 1), TrainingSchedule())
    assert (optimizer.defaults["rho"], optimizer.defaults["eps"], optimizer.defaults["lr"]) == (0.95, 1e-6, 1.0)


def trained(seed=0, *, epochs=4, **options):
    """A small model after some epochs, with dropout; and what was reported."""
    train_set, test_set = motion_problem()
    torch.manual_seed(seed)
    model = HAN(HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=8, skip=2, dropout=0.3))
    reports = []
    on_epoch = lambda epoch, pace: reports.append((epoch, pace))  # noqa: E731
    schedule = TrainingSchedule(epochs=epochs, batch=21, optimizer="adadelta", seed=7)
    options.setdefault("validation", test_set)
    train(model, options.pop("features", train_set), schedule, on_epoch=on_epoch, **options)
    return model.state_dict(), reports


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_an_interrupted_run_ends_with_the_same_weights_and_curve(tmp_path):
    whole, reports = trained()
    path = tmp_path / "run.safetensors"
    trained(epochs=2, checkpoint=Checkpoint(path, seconds=0))
    resumed, later = trained(seed=99, checkpoint=Checkpoint(path, seconds=0))
    assert equal(whole, resumed)
    assert [epoch for epoch, _ in later] == [epoch for epoch, _ in reports]
    assert [pace is None for _, pace in later] == [True, True, False, False]
    assert all(0 <= pace.waiting <= 1 and pace.clips_per_second > 0 for _, pace in reports)


def test_a_loss_that_is_not_finite_leaves_the_last_good_state(tmp_path):
    train_set, _ = motion_problem()
    checkpoint = Checkpoint(tmp_path / "run.safetensors", seconds=0)
    good, _ = trained(epochs=2, checkpoint=checkpoint)
    train_set.arrays["spatial"][0, 0, 0, 0] = float("nan")
    model = HAN(HANConfig(BOTH, 2, CHANNELS, REGIONS, lstm_size=8, skip=2, dropout=0.3))
    schedule = TrainingSchedule(epochs=4, batch=21, seed=7, standardize=False)
    with pytest.raises(TrainingError, match=r"epoch 3: .* The last good state is in .*run\.safetensors"):
        train(model, train_set, schedule, checkpoint=checkpoint)
    kept = HAN(model.config)
    checkpoint.restore(kept, make_optimizer(kept, schedule))
    assert equal(good, kept.state_dict())


def test_sparse_features_train_the_same_model():
    train_set, _ = motion_problem()
    halved = MemoryFeatures({s: c.half() for s, c in train_set.arrays.items()}, train_set.labels)
    sparse = MemoryFeatures({s: SparseCubes.from_dense(c) for s, c in halved.arrays.items()}, halved.labels)
    dense, _ = trained(features=halved, validation=None)
    other, _ = trained(features=sparse, validation=None)
    for name, value in dense.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=1e-4)


def _member(rank, size, port, folder):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with processes(torch.device("cpu")) as group:
        state, reports = trained(processes=group)
        torch.save((state, [(e.loss, e.top1) for e, _ in reports]), f"{folder}/{size}-{rank}")


@pytest.mark.parametrize("size", [2, 3])
def test_several_processes_give_the_result_of_one(size, tmp_path, free_port):
    """The same batches and dropout; sums in another order, and Adadelta divides by roots of small numbers."""
    alone, reports = trained()
    torch.multiprocessing.spawn(_member, (size, free_port, str(tmp_path)), nprocs=size)
    for rank in range(size):
        state, figures = torch.load(tmp_path / f"{size}-{rank}")
        for name, value in alone.items():
            torch.testing.assert_close(value, state[name], rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
        assert figures == [pytest.approx((e.loss, e.top1), rel=1e-3) for e, _ in reports]
