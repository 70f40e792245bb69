"""What a silent program says: after how long, of what, and that a line of the project's own counts as one."""

import logging
import time

from tpu_retinamask import signs_of_life


def test_a_silence_is_broken_and_a_line_counts(capfd):
    log = logging.getLogger("test_signs_of_life")
    handler = signs_of_life.TerminalHandler()
    log.addHandler(handler)
    try:
        with signs_of_life.shown(silence=0.4):
            signs_of_life.now("compiling")
            time.sleep(1.4)
            quiet = capfd.readouterr().err
            signs_of_life.now("talking")
            for _ in range(8):
                log.warning("a line")
                time.sleep(0.1)
            talking = capfd.readouterr().err
            signs_of_life.now(None)  # a bar of its own
            time.sleep(0.8)
            assert capfd.readouterr().err == ""
    finally:
        log.removeHandler(handler)
    assert 2 <= quiet.count(" ... compiling, ") <= 3 and quiet.count("\n") == quiet.count("compiling")
    assert talking.count("a line") == 8 and "..." not in talking
    time.sleep(0.6)
    assert capfd.readouterr().err == ""  # it ends with its block
