"""The programs of the data service: two workers feed a training, which learns what it learns without them."""

import re
import socket
import subprocess

import pytest


@pytest.fixture
def service(program, tmp_path):
    """Run a dispatcher and two workers as programs of their own; give the address."""
    sockets = [socket.socket() for _ in range(3)]
    for one in sockets:
        one.bind(("localhost", 0))
    port, *ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    running = []

    def start(*flags):
        log = (tmp_path / f"{len(running)}.log").open("w")
        running.append(
            subprocess.Popen(
                program.command("data_service", *flags),
                cwd=program.folder,
                env=program.environment,
                stderr=log,
                stdout=log,
            )
        )

    start("dispatcher", f"--port={port}", "--workers=" + ",".join(f"localhost:{number}" for number in ports))
    for number in ports:
        start("worker", f"--port={number}", f"--dispatcher=localhost:{port}", f"--address=localhost:{number}")
    yield f"grpc://localhost:{port}"
    for process in running:
        process.kill()
        process.wait()


def losses(text):
    """Return the loss of every step, as the lines of a training give it."""
    return re.findall(r"step +(\d+)/\d+.*?loss +([\d.]+)", text)


@pytest.mark.slow
def test_two_workers_feed_a_run_that_learns_the_same(service, program, shapes, training, tmp_path):
    gin = training.gin + ["train.steps = 6", "Augmentation.rotation = 10.0"]
    alone = program("train", *training.flags(tmp_path / "alone"), gin=gin)
    served = program("train", *training.flags(tmp_path / "served"), f"--data_service={service}", gin=gin)
    assert alone.returncode == served.returncode == 0, served.stderr[-3000:]
    assert f"data service {service}: 2 workers" in served.stderr
    assert len(losses(alone.stderr)) == 6
    assert losses(served.stderr) == losses(alone.stderr)


def test_roles_and_flags_are_asked_for(quick_program):
    mistakes = {
        (): "say which: `data_service dispatcher` or `data_service worker`",
        ("dispatcher",): "data_service dispatcher needs --port",
    }
    for role, message in mistakes.items():
        done = quick_program("data_service", *role)
        assert done.returncode == 2 and message in done.stderr
