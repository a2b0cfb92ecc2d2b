"""Slurm's hostlists are read and written without Slurm."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sut.plan.hostlist import HostlistError, compact, expand


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("jw2", "jw2"),
        ("jw[2-3]", "jw2 jw3"),
        ("jw2,jw3", "jw2 jw3"),
        ("jw2, jw3", "jw2 jw3"),
        ("jw3,jw2", "jw3 jw2"),
        ("n[08-11]", "n08 n09 n10 n11"),
        ("n[8-11]", "n8 n9 n10 n11"),
        ("n[001,3,07-09]", "n001 n3 n07 n08 n09"),
        ("r[0-1]n[1-2]", "r0n1 r0n2 r1n1 r1n2"),
        ("a[1,3]-ib,b-gpu.site[5]", "a1-ib a3-ib b-gpu.site5"),
        ("[1-2]", "1 2"),
        ("nid[001033,003837-003838]", "nid001033 nid003837 nid003838"),
        ("gpu-15-[23-24,27]", "gpu-15-23 gpu-15-24 gpu-15-27"),
        ("asusgpu[1-2],steven,a100a", "asusgpu1 asusgpu2 steven a100a"),
    ],
)
def test_expands_a_hostlist(text: str, names: str) -> None:
    assert expand(text) == names.split()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no name"),
        ("  ", "no name"),
        ("jw2,,jw3", "empty name between commas"),
        ("jw2,", "empty name between commas"),
        (",jw2", "empty name between commas"),
        ("jw2,jw2", "duplicate node jw2"),
        ("jw[2-3],jw3", "duplicate node jw3"),
        ("jw[2-3", "unmatched ["),
        ("jw2-3]", "unmatched ]"),
        ("jw[[2-3]]", "unmatched ["),
        ("jw[]", "'' in [] is not a number or a range"),
        ("jw[2,,3]", "'' in [2,,3] is not"),
        ("jw[2-]", "'2-' in [2-] is not"),
        ("jw[a-b]", "'a-b' in [a-b] is not"),
        ("jw[2-3-4]", "'2-3-4' in"),
        ("jw[3-2]", "range 3-2 in [3-2] runs backwards"),
        ("jw[0-99999999999]", "more than 65,536 nodes"),
        ("a[0-999]b[0-999]", "more than 65,536 nodes"),
        ("a[0-40000],b[0-40000]", "more than 65,536 nodes"),
        ("a" + "[0-9]" * 100, "more than 65,536 nodes"),
        (f"a[{','.join(['0-60000'] * 2)}]", "more than 65,536 nodes"),
        ("a" * 256, "a node name of more than 255 characters"),
        (f"{'a' * 200}[{'0' * 100}-9]", "a node name of more than 255 characters"),
        (f"a[{'1' * 5000}]", "a number of more than 255 digits"),
        ("jw 2", "'jw 2' is not a node name"),
        ("jw[2-3]/x", "'jw2/x' is not a node name"),
    ],
)
def test_refuses_a_malformed_hostlist(text: str, problem: str) -> None:
    with pytest.raises(HostlistError) as error:
        expand(text)
    assert problem in str(error.value)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ("", ""),
        ("jw2", "jw2"),
        ("jw2 jw3", "jw[2-3]"),
        ("jw3 jw2", "jw[3,2]"),
        ("n08 n09 n10 n12", "n[08-10,12]"),
        ("n9 n10", "n[9-10]"),
        ("n09 n10 n011", "n[09-10,011]"),
        ("n1 n02", "n[1,02]"),
        ("n99 n100", "n[99-100]"),
        ("login gpu1 gpu2 login2", "login,gpu[1-2],login2"),
        ("gpu1-ib gpu2-ib", "gpu[1-2]-ib"),
        ("localhost", "localhost"),
        ("w w4 w5", "w,w[4-5]"),
        ("9" * 300, "9" * 300),
    ],
)
def test_prints_one_form(names: str, text: str) -> None:
    assert compact(names.split()) == text


NAMES = st.from_regex(r"([a-c]{0,2}[0-9]{1,3}|[a-c])([a-c][0-9]{0,2})?", fullmatch=True)


@given(st.lists(NAMES, unique=True))
@example(["1" * 200 + "0", "1" * 200 + "1"])  # a range longer than a name may be
def test_reads_what_it_prints(names: list[str]) -> None:
    assert not names or expand(compact(names)) == names
