"""The request that a training end: which signals it takes, what it says, and when the process ends at once."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tpu_retinamask.training.loop.stop_request import StopRequest


def test_in_a_program_of_others_a_second_signal_is_theirs():
    with StopRequest().listening() as stop, pytest.raises(KeyboardInterrupt):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
    assert stop.received


@pytest.mark.parametrize(
    "step, saved, long, alone, signals, said",
    [
        # Nothing is lost by it: a compilation is not waited for.
        (
            0,
            0,
            True,
            True,
            1,
            ["SIGINT: ended; no step had been made, so nothing is lost. Run the same command to go on"],
        ),
        (40, 40, True, True, 1, ["SIGINT: ended; step 40 is saved, so nothing is lost. Run the same command to go on"]),
        (
            47,
            40,
            False,
            True,
            2,
            [
                "SIGINT: stopping after this loop; once more ends it at once",
                "SIGINT: ended at once; what was learnt after step 40 is lost. Run the same command to go on from "
                "step 40",
            ],
        ),
        # Others that share the run would wait for it: it is they who stop together, after the loop.
        (
            0,
            0,
            True,
            False,
            2,
            [
                "SIGINT: stopping after this loop; once more ends it at once",
                "SIGINT: ended at once; the loop in progress is lost. Run the same command to go on from step 0",
            ],
        ),
    ],
)
def test_a_program_ends_while_its_main_thread_is_busy(step, saved, long, alone, signals, said):
    script = f"""
import ctypes, sys
from tpu_retinamask.training.loop.stop_request import StopRequest
stop = StopRequest(ends_process=True, alone={alone})
stop.at({step}, {saved}, long={long})
with stop.listening():
    print("ready", flush=True)
    ctypes.CDLL(None).poll(None, ctypes.c_ulong(0), 3)  # wakes at a signal, as a compilation does not
    for _ in range(200):
        ctypes.CDLL(None).usleep(50000)  # Python's own handlers run between these, as between loops
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    time.sleep(0.2)
    for number in range(signals):
        process.send_signal(signal.SIGINT)
        if number + 1 < signals:
            time.sleep(0.3)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 130 and text.splitlines() == said


def test_the_signal_is_announced(capfd):
    # On the file descriptor itself: a handler that logs could interrupt the log in the middle of a line.
    with StopRequest().listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.received
    assert capfd.readouterr().err == "SIGTERM: stopping after this loop\n"  # written by the time listening ends


BUSY = """
import os, time
from tpu_retinamask.training.loop.stop_request import StopRequest
stop = StopRequest(ends_process=True)
stop.at(3, 0)
with stop.listening():
    print("ready", flush=True)
    time.sleep(60)
"""


def test_where_nobody_reads_its_words_it_ends_all_the_same():
    # `2>&1 | tee log`: the Ctrl-C ends tee first.
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stderr.close()
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    assert process.wait(timeout=30) == 130


def test_a_signal_that_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts a job in the background
    try:
        with StopRequest().listening() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert not stop.received
    finally:
        signal.signal(signal.SIGINT, before)
