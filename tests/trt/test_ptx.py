"""The interpreter of PTX executes a right kernel, and refuses each thing that is wrong with it."""

import re

import numpy as np
import pytest

from tests.support.ptx import Fault, run

THREADS, BLOCKS = 4, 2
REVERSED = """
.visible .entry reversed(.param .u64 reversed_param_0, .param .u64 reversed_param_1)
{
    .reg .pred %p<2>;
    .shared .align 4 .b8 plane[16];
    ld.param.u64 %rd1, [reversed_param_0];
    ld.param.u64 %rd2, [reversed_param_1];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mad.lo.s32 %r3, %r2, 4, %r1;
    mul.wide.s32 %rd3, %r3, 4;
    add.s64 %rd4, %rd1, %rd3;
    add.s64 %rd5, %rd2, %rd3;
    shl.b32 %r4, %r1, 2;
    mov.u32 %r5, plane;
    add.s32 %r6, %r5, %r4;
    sub.s32 %r7, %r5, %r4;
    setp.lt.s32 %p1, %r1, 3;
    @%p1 bra $OTHERS;
    ld.global.f32 %f1, [%rd4];
    bra.uni $ALL;
$OTHERS:
    ld.global.f32 %f1, [%rd4];
$ALL:
    st.shared.f32 [%r6], %f1;
    bar.sync 0;
    ld.shared.f32 %f2, [%r7+12];
    st.global.f32 [%rd5], %f2;
    ret;
}
"""
"""Reverses the four floats of each block, by shared memory."""

WRONG = {
    "no barrier": ("bar.sync 0;", "", "race: reads"),
    "all write one place": ("[%r6]", "[%r5]", "race: writes"),
    "reads, and a write in the same interval": (
        "st.global.f32 [%rd5], %f2;",
        "st.global.f32 [%rd5], %f2; st.shared.f32 [%r6], %f2;",
        "race: writes what another thread accesses",
    ),
    "a barrier for some": ("ret;", "@%p1 bar.sync 0; ret;", "threads of a block miss it"),
    "a load outside": ("$OTHERS:", "$OTHERS: ld.global.f32 %f1, [%rd4+-4];", "access outside"),
    "a load across elements": ("[%rd4];\n$ALL", "[%rd4+2];\n$ALL", "not a multiple of 4"),
    "a load beyond the plane": ("[%r7+12]", "[%r7+16]", "access outside, at bytes"),
    "an output written twice": ("ret;", "st.global.f32 [%rd5], %f2; ret;", "written before"),
    "an output written by two": ("[%rd5], %f2", "[%rd2], %f2", "race: writes"),
    "an output written by nobody": ("st.global", "@%p1 st.global", "written by nobody"),
    "the output read": ("ret;", "ld.global.f32 %f1, [%rd5]; ret;", "access outside"),
    "a register never written": ("[%rd5], %f2", "[%rd5], %f3", "%f3 is read before"),
    "an instruction that is not known": ("sub.s32", "brev.s32", "is not known here"),
    "a comparison with a second condition": ("setp.lt.s32", "setp.lt.and.s32", "not known here"),
}  # fmt: skip


def executed(text: str) -> list[float]:
    x = np.arange(THREADS * BLOCKS, dtype=np.float32)
    output: list[float] = run(text, x, np.empty_like(x), blocks=BLOCKS, threads=THREADS).tolist()
    return output


def test_threads_part_meet_again_and_exchange_numbers() -> None:
    assert executed(REVERSED) == [3, 2, 1, 0, 7, 6, 5, 4]


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_refused(what: str) -> None:
    right, wrong, message = WRONG[what]
    assert REVERSED.count(right) == 1
    with pytest.raises(Fault, match=re.escape(message)):
        executed(REVERSED.replace(right, wrong))
