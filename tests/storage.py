"""Damage to stored files, and small disks: for tests of what is stored."""

import contextlib
import shutil
import subprocess
import sys

import pytest


def flip_a_bit(file, share=0.5):
    """Flip one bit of a file. share: of its bytes that come before it."""
    content = bytearray(file.read_bytes())
    content[int(share * (len(content) - 1))] ^= 4
    file.write_bytes(bytes(content))


def forget_checksums(folder):
    """Remove the checksums of a stored study, as one of an earlier version has none; then tests can change its files."""
    for manifest in folder.glob("runs/*/checksums.json"):
        manifest.unlink()
    for seals in (*folder.glob(".checksums"), *folder.glob("*/.checksums")):
        shutil.rmtree(seals)


@contextlib.contextmanager
def small_disk(folder, size):
    """A file system of a given size, in memory; the test is skipped where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
