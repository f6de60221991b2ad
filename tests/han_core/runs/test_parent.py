"""A process that ends with the one that started it, however that ended."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

CHILD = """
import signal, sys, time
from han_core.runs.parent import end_with_parent
if sys.argv[1] != "not":
    end_with_parent(signal.Signals[sys.argv[1]])
print("ready", flush=True)
time.sleep(60)
"""
PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


@pytest.mark.skipif(sys.platform != "linux", reason="the system's own means are Linux's")
@pytest.mark.parametrize("by", ["SIGTERM", "SIGKILL", "not"])
def test_it_ends_where_its_parent_is_killed(by, repository):
    command = [sys.executable, "-c", PARENT, CHILD, by]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository)
    assert parent.stdout.readline() == "ready\n"
    (child,) = psutil.Process(parent.pid).children()
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + (20 if by != "not" else 0.5)
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.01)
    lives = child.is_running() and child.status() != psutil.STATUS_ZOMBIE
    if lives:
        child.kill()
    parent.stdout.close()
    assert lives == (by == "not")
