"""HAN's training loop fits the two-stream CNN + LSTM: it learns order, resumes, and spreads over processes."""

import os

import pytest
import torch
import torch.multiprocessing

from han_core.baselines.cnn_lstm.model import CNNLSTM, CNNLSTMConfig
from han_core.cubes.features import MemoryFeatures
from han_core.han.training import TrainingSchedule, classify, train
from han_core.runs.checkpoint import Checkpoint
from han_core.runs.processes import Processes, processes

BOTH = ("spatial", "temporal")
FRAMES, CHANNELS = 6, 4


def order_problem(clips, seed):
    """Channel 0 then channel 1, or the other way round: the same frames in another order."""
    generator = torch.Generator().manual_seed(seed)
    values = {s: 0.3 * torch.randn(clips, FRAMES, CHANNELS, 1, generator=generator) for s in BOTH}
    labels = torch.arange(clips) % 2
    half = FRAMES // 2
    for clip, label in enumerate(labels.tolist()):
        for value in values.values():
            value[clip, :half, label] += 1
            value[clip, half:, 1 - label] += 1
    return MemoryFeatures({s: value.half() for s, value in values.items()}, labels)


def right(probabilities, labels):
    return (probabilities.argmax(-1) == labels).float().mean().item()


def test_the_order_of_the_same_frames_is_learnt_from_sixty_sequences():
    learnt, tested = order_problem(60, 1), order_problem(100, 2)
    torch.manual_seed(0)
    model = CNNLSTM(CNNLSTMConfig(BOTH, 2, CHANNELS, units=16, layers=5, dropout=0.1, forget_bias=1.6))
    train(model, learnt, TrainingSchedule(epochs=40, batch=30, optimizer="adam", learning_rate=0.01, seed=3))
    probabilities, streams = classify(model, tested, details=True)
    assert streams.shape == (100, 2, 2)
    torch.testing.assert_close(probabilities, streams.mean(1))
    for found in (probabilities, streams[:, 0], streams[:, 1]):
        assert right(found, tested.labels) > 0.95
    backwards = MemoryFeatures({s: v.flip(1) for s, v in tested.arrays.items()}, tested.labels)
    assert right(classify(model, backwards)[0], tested.labels) < 0.05


def small(streams=BOTH, dropout=0.3):
    return CNNLSTM(CNNLSTMConfig(streams, 2, CHANNELS, units=6, layers=3, dropout=dropout, forget_bias=1.0))


def trained(seed=0, *, epochs=4, **options):
    """A small model after some epochs, with dropout and clipped gradients; and what was reported."""
    torch.manual_seed(seed)
    model, reports = small(), []
    schedule = TrainingSchedule(epochs=epochs, batch=21, optimizer="adadelta", clip_gradient=0.05, seed=7)
    on_epoch = lambda epoch, pace: reports.append(epoch)  # noqa: E731
    train(model, order_problem(64, 1), schedule, validation=order_problem(20, 2), on_epoch=on_epoch, **options)
    return model.state_dict(), reports


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def test_the_same_seed_gives_the_same_weights():
    assert equal(trained()[0], trained()[0])
    assert not equal(trained()[0], trained(seed=1)[0])


@pytest.mark.gpu
def test_on_a_gpu_steps_are_replayed_and_give_the_same_each_time(gpu, caplog):
    def run():
        torch.manual_seed(0)
        model = small()
        schedule = TrainingSchedule(epochs=4, batch=21, clip_gradient=0.05, seed=7)
        train(model, order_problem(64, 1).to(gpu), schedule, processes=Processes(device=gpu))
        return {name: value.cpu() for name, value in model.state_dict().items()}

    before = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode("warn")  # as stages train
    try:
        first, second = run(), run()
    finally:
        torch.set_deterministic_debug_mode(before)
    assert not [r for r in caplog.records if "captured" in r.getMessage()]
    assert equal(first, second)


def test_what_is_reported_is_the_loss_of_both_streams():
    """Untrained and blind, each says that both classes are as likely: twice log 2."""
    model, reports = small(dropout=0), []
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    schedule = TrainingSchedule(epochs=1, batch=64, optimizer="sgd", learning_rate=1e-9)
    train(model, order_problem(64, 1), schedule, on_epoch=lambda epoch, pace: reports.append(epoch))
    assert reports[0].loss == pytest.approx(2 * 0.693147, rel=1e-5)


def test_features_are_standardised_over_the_training_clips():
    model, clips = small(), order_problem(64, 1)
    train(model, clips, TrainingSchedule(epochs=1))
    for place, stream in enumerate(BOTH):
        values = clips.arrays[stream].double().squeeze(3).flatten(0, 1)
        torch.testing.assert_close(model.mean[place].double(), values.mean(0), atol=1e-6, rtol=0)
        torch.testing.assert_close(model.deviation[place].double(), values.std(0, correction=0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("optimizer", ["adadelta", "adam", "sgd"])
def test_each_stream_ends_as_if_it_were_trained_alone(optimizer):
    """Also where gradients are clipped: the other stream's must not count."""
    clips = order_problem(64, 1)
    clips.arrays["temporal"] *= 30
    schedule = TrainingSchedule(
        epochs=3, batch=21, optimizer=optimizer, learning_rate=0.1, clip_gradient=0.05, standardize=False, seed=7
    )
    torch.manual_seed(0)
    joint = small(dropout=0)
    start = {name: value.clone() for name, value in joint.state_dict().items()}
    train(joint, clips, schedule)
    for place, stream in enumerate(BOTH):
        alone = small((stream,), dropout=0)
        own = {name: value for name, value in start.items() if f".{stream}." in name}
        alone.load_state_dict(own | {name: start[name][place : place + 1] for name in ("mean", "deviation")})
        train(alone, MemoryFeatures({stream: clips.arrays[stream]}, clips.labels), schedule)
        for name in own:
            torch.testing.assert_close(joint.state_dict()[name], alone.state_dict()[name], rtol=1e-4, atol=1e-6)
            assert not torch.equal(joint.state_dict()[name], start[name]), "it did learn"


def test_an_interrupted_run_ends_with_the_same_weights_and_curve(tmp_path):
    whole, reports = trained()
    path = tmp_path / "run.safetensors"
    trained(epochs=2, checkpoint=Checkpoint(path, seconds=0))
    resumed, later = trained(seed=99, checkpoint=Checkpoint(path, seconds=0))
    assert equal(whole, resumed)
    assert later == reports


def _member(rank, port, folder):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with processes(torch.device("cpu")) as group:
        state, reports = trained(processes=group)
        torch.save((state, [(e.loss, e.top1) for e in reports]), f"{folder}/{rank}")


@pytest.mark.long
def test_two_processes_give_the_result_of_one(tmp_path, free_port):
    """The same batches and dropout; sums in another order, and Adadelta divides by roots of small numbers. The last
    batch, of one clip, leaves a process without any."""
    alone, reports = trained()
    torch.multiprocessing.spawn(_member, (free_port, str(tmp_path)), nprocs=2)
    for rank in range(2):
        state, figures = torch.load(tmp_path / str(rank))
        for name, value in alone.items():
            torch.testing.assert_close(value, state[name], rtol=2e-3, atol=2e-4, msg=lambda m, n=name: f"{n}: {m}")
        assert figures == [pytest.approx((e.loss, e.top1), rel=1e-3) for e in reports]
