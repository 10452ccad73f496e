"""Freed memory stays with the process, so that a training step does not fault its pages again."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys, torch
from vidseg.host_memory import keep_freed_memory
if len(sys.argv) > 1 and not keep_freed_memory():
    print("unsupported")
    sys.exit()
def step():
    torch.ones(2_000_000)  # 8 MB, freed at once
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
    torch.ones(9_000_000)  # above the size up to which glibc adapts by itself
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(*args: str, **variables: str) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    environment.pop("LD_PRELOAD", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *args],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of other systems is left alone")
@pytest.mark.slow
def test_blocks_are_used_again_without_page_faults():
    kept = page_faults("keep")
    if kept == "unsupported":
        pytest.skip("this C library has no mallopt")
    assert int(kept) < int(page_faults()) / 3


def test_a_tuned_allocator_is_left_alone():
    assert page_faults("keep", MALLOC_ARENA_MAX="2") == "unsupported"


RELEASE = """
from pathlib import Path
from vidseg.host_memory import release_freed_memory
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4 // 1024
large, small = [], []
for _ in range(2000):  # what stays lies between what goes
    large.append(bytearray(60_000))
    small.append(bytearray(600))
del large
before = resident()
done = release_freed_memory()
print(before - resident() if done else "unsupported")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of other systems is left alone")
def test_holes_are_given_back():
    words = [sys.executable, "-c", RELEASE]
    given = subprocess.run(words, capture_output=True, text=True, check=True)
    if given.stdout.strip() == "unsupported":
        pytest.skip("this C library has no malloc_trim")
    assert int(given.stdout) > 50


MAPPED = """
from pathlib import Path
from vidseg.host_memory import large_blocks_mapped
resident = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4 // 1024
def grown():
    before, small = resident(), []
    for size in range(40):  # each larger than the hole of the one before
        block = bytearray((1 << 20) + (size << 16))
        small.append(bytearray(60_000))  # stays behind it
        del block
    return resident() - before
bytearray(30 << 20)  # glibc now keeps blocks of up to this size in the heap
with large_blocks_mapped():
    mapped = grown()
print(mapped, grown())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the allocator of other systems is left alone")
def test_large_blocks_leave_no_holes():
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    environment.pop("LD_PRELOAD", None)
    words = [sys.executable, "-c", MAPPED]
    grown = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    mapped, kept = map(int, grown.stdout.split())
    assert mapped < 5 < kept
