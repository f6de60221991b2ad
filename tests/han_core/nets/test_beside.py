"""Copies to a GPU and back: who waits for whom, told by streams that only note it."""

from contextlib import contextmanager

import pytest
import torch

from han_core.nets.beside import Copies, PinnedMemory

notes: list[str] = []


class Stream:
    def __init__(self, name: str = "") -> None:
        self.name = name or f"stream {sum(note.startswith('made') for note in notes) + 1}"
        if not name:
            notes.append(f"made {self.name}")

    def wait_stream(self, other: "Stream") -> None:
        notes.append(f"{self.name} waits for {other.name}")

    def record_event(self, event: object) -> object:
        notes.append(f"{self.name} is marked")
        return event


class Event:
    def __init__(self, *, blocking: bool) -> None:
        assert blocking, "a thread that waits would keep a core busy"

    def synchronize(self) -> None:
        notes.append("the host waits")


@pytest.fixture
def copies(monkeypatch):
    notes.clear()

    @contextmanager
    def on(stream):
        notes.append(f"on {stream.name}")
        yield
        notes.append("on computing")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream())
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("computing"))
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: notes.append(f"kept for {stream.name}"))
    made = Copies(torch.device("cuda"))
    made._device = torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return made


def test_what_is_computed_waits_for_its_input_and_what_comes_back_for_what_is_computed(copies):
    up, down = notes[0].removeprefix("made "), notes[1].removeprefix("made ")
    assert up != down
    notes.clear()
    values = torch.arange(6.0)
    found = copies.upload(values)
    assert notes == [f"on {up}", "on computing", f"computing waits for {up}", "kept for computing"]
    notes.clear()
    target = PinnedMemory().take("x", (6,), torch.float32)
    copies.download(found * 2, target)
    assert notes == [f"{down} waits for computing", f"on {down}", "on computing", f"kept for {down}"]
    notes.clear()
    copies.finish(copies.mark())
    assert notes == [f"{down} is marked", "the host waits"]
    assert target.tolist() == [0, 2, 4, 6, 8, 10]


def test_memory_is_made_once_and_again_only_where_it_is_too_small():
    memory = PinnedMemory()
    first = memory.take("a", (4, 5), torch.float16)
    assert (first.shape, first.dtype) == ((4, 5), torch.float16)
    assert memory.take("a", (10,), torch.float32).data_ptr() == first.data_ptr()
    assert memory.take("b", (10,), torch.uint8).data_ptr() != first.data_ptr()
    assert memory.take("a", (11,), torch.float32).shape == (11,)
