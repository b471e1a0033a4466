"""Errors for lack of memory, as Python, the system and torch raise them."""

import errno
import gc

import torch

# messages of torch's RuntimeErrors: of its CPU allocator, of oneDNN, which names no other reason, and of what takes
# memory of a GPU past torch's own allocator
_MESSAGES = (
    "can't allocate memory",
    "DefaultCPUAllocator",
    "not enough memory",
    "could not create a memory object",
    "could not create a primitive",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # the first product on a full GPU
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an error for lack of memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)


def release_memory() -> None:
    """Return unused memory: of objects that refer to each other, and of torch's cache on a GPU."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
