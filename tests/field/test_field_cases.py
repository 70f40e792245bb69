"""Inputs of other people, rebuilt from public bug reports: each line of each case, as a user types it."""

import pytest
from field.expected import EXPECTED, QUICK
from field.made_files import INPUTS
from field.written import WRITTEN

CASES = [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in EXPECTED]


def test_every_case_and_every_line_has_an_expectation():
    lines = {path.parent.name: path.read_text().splitlines() for path in INPUTS.glob("[0-9]*/cmd.txt")}
    assert {case: len(said) for case, said in lines.items()} == {case: len(said) for case, said in EXPECTED.items()}
    assert len(lines) == 24 and sum(map(len, lines.values())) == 113


@pytest.mark.parametrize("name", CASES)
def test_a_case_gives_what_its_user_expects(name, field_case):
    case = field_case(name)
    done = []
    for line, expected in zip(case.lines, EXPECTED[name]):
        done.append(case.run(line))
        said = done[-1].stdout + done[-1].stderr
        assert done[-1].returncode == expected.code, f"{line}\n{said[-3000:]}"
        assert "Traceback" not in said
        assert done[-1].stderr.count("error: ") == (expected.code != 0)
        missing = [word for word in expected.words if word not in said]
        assert not missing, f"{line}\n{said[-3000:]}"
        assert not [word for word in expected.silent if word in said], said[-3000:]
    if name in WRITTEN:
        WRITTEN[name](case, done)
    now = case.digests()
    assert {path: now.get(path) for path in case.given} == case.given  # nothing of the user's is replaced
