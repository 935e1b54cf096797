"""tools/kernel_bounds.py reads what ptxas and nvdisasm say, and computes what follows by hand."""

import shutil
from collections import Counter

import pytest

pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")
import kernel_bounds
from kernel_bounds import GPUS, Code, estimate, instructions, kernels, resident, resources

REPORT = """
ptxas info    : Compiling entry function 'tower_lrn' for 'sm_80'
    0 bytes stack frame, 16 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 56 registers, used 1 barriers, 9216 bytes smem, 368 bytes cmem[0]
"""
LISTING = """
.text.kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   MUFU.RSQ R2, R1 ;
.L_x_0:
        /*0020*/              @!P0 BRA `(.L_x_1) ;
        /*0030*/                   MUFU.RSQ R2, R1 ;
        /*0040*/               @P1 MUFU.SQRT R3, R2 ;
.L_x_1:
        /*0050*/                   FMUL R4, R3, R2 ;
        /*0060*/               @P2 BRA `(.L_x_0) ;
.L_x_2:
        /*0070*/              @!UP1 FADD R4, R3, R2 ;
        /*0080*/               @P2 BRA `(.L_x_2) ;
        /*0090*/                   EXIT ;
.L_x_3:
        /*00a0*/                   BRA `(.L_x_3);
        /*00b0*/                   NOP;
"""
KERNELS = dict(kernels())


def test_the_compilers_report_is_read() -> None:
    assert resources(REPORT) == (56, 16, 9216)
    assert resources(REPORT.replace("9216 bytes smem, ", "")) == (56, 16, 0)


def test_the_loop_with_the_roots_is_found() -> None:
    every, loop = instructions(LISTING)
    assert every == Counter(LDC=1, MUFU=3, BRA=4, FMUL=1, FADD=1, EXIT=1)
    assert loop == Counter(BRA=2, MUFU=2, FMUL=1)
    straight = LISTING.replace("@P2 BRA", "@P2 FADD")
    assert instructions(straight)[0] == instructions(straight)[1]


@pytest.mark.parametrize(
    ("architecture", "threads", "registers", "shared_bytes", "expected"),
    [
        (90, 288, 56, 9216, (4, 36 / 64)),  # 65536 / (56 * 288) = 4.06
        (90, 288, 57, 9216, (3, 27 / 64)),  # 64 registers are allocated
        (90, 336, 64, 0, (2, 22 / 64)),  # 11 warps of 2048 registers, of 32
        (90, 192, 46, 0, (6, 36 / 64)),  # a scheduler has registers for 10 warps, not for 10.7
        (89, 256, 30, 0, (6, 1.0)),  # 48 warps
        (86, 32, 16, 0, (16, 16 / 48)),
        (86, 128, 32, 30 << 10, (3, 12 / 48)),  # 31 KiB of 100
    ],
)
def test_the_scarcest_resource_decides_how_many_blocks_fit(
    architecture: int,
    threads: int,
    registers: int,
    shared_bytes: int,
    expected: tuple[int, float],
) -> None:
    assert resident(architecture, threads, registers, shared_bytes) == expected


def test_a_time_is_the_longest_of_memory_special_functions_and_issue() -> None:
    code = Code(56, 0, 0, 3, 0.5, 700, loop_instructions=400, loop_roots=64)
    h200 = next(gpu for gpu in GPUS if gpu.name == "H200")
    times = estimate(KERNELS["conv1 half hwc8 relu-lrn-pool"], code, h200, 256)
    elements = 256 * 96 * 55 * 55
    # Three blocks of 11 warps, with 19 rows, and two columns of eight channels a thread.
    computed = 256 * 3 * 352 * 19 * 2 * 8
    assert times == {
        "memory_us": round(256 * 96 * (55 * 55 + 27 * 27) * 2 / 4800e3, 1),
        "special_us": round(2 * elements / (16 * 132 * 1980), 1),
        "issue_us": round(computed * 400 / 32 / (128 * 132 * 1980), 1),
        "bound_us": 38.4,
        "estimate_us": 39.3,
        "bound_share": 0.978,
    }
    linear = estimate(KERNELS["conv1 half linear relu-lrn-pool"], code, h200, 256)
    assert linear["reformats_us"] == pytest.approx(2 * times["memory_us"], abs=0.2)


@pytest.mark.skipif(shutil.which("ptxas") is None, reason="ptxas is not installed")
def test_a_kernel_is_compiled_and_disassembled() -> None:
    kernel = KERNELS["conv2 half hwc8 lrn"]
    code = kernel_bounds.machine_code(kernel, 90)
    assert (code.spill_bytes, code.shared_bytes, code.blocks) == (0, 0, 8)
    assert code.loop_roots == 16, "two for each of a thread's eight channels"
    assert 0 < code.loop_instructions == code.instructions


@pytest.mark.parametrize(
    ("option", "value", "what"),
    [("--json", "nowhere/f", "create it first"), ("--batch", "0", "expected 1 or more")],
)
def test_wrong_options_are_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    value: str,
    what: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["kernel_bounds.py", option, value])
    with pytest.raises(SystemExit, match="2"):
        kernel_bounds.main()
    assert what in capsys.readouterr().err


def test_a_missing_assembler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="ptxas is not in the search path"):
        kernel_bounds.ptxas()
