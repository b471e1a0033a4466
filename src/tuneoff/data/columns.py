"""Columns of any Arrow type as those that the rest reads: strings, numbers, or lists of them.

# N examples
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tuneoff.errors import DataError, one_line

MAX_TEXT_BYTES = 8 * 2**20  # of a text: three times the longest novel
MAX_LABEL_BYTES = 1000  # of a label, a group or a slice


def plain_column(column: pa.ChunkedArray, what: str, max_bytes: int) -> pa.ChunkedArray:
    """Return a column without dictionaries, views and bytes. Strings are large strings, and valid UTF-8.

    what: the column, for messages. max_bytes: of a string. Raises DataError, in one line.
    """
    try:
        converted = _converted(column)
        converted.validate(full=True)
    except (pa.ArrowException, NotImplementedError) as error:
        raise DataError(f"{what} cannot be read as text: {one_line(error)}; save it in UTF-8") from error
    if pa.types.is_large_string(converted.type) and len(converted):
        _check_lengths(pc.binary_length(converted), what, max_bytes)
    elif pa.types.is_large_list(converted.type) and pa.types.is_large_string(converted.type.value_type):
        _check_lengths(pc.binary_length(pc.list_flatten(converted)), what, max_bytes)
    return converted


def _check_lengths(lengths: pa.ChunkedArray, what: str, max_bytes: int) -> None:
    longest = pc.max(lengths).as_py() if len(lengths) else None
    if longest is not None and longest > max_bytes:
        row = int(np.argmax(pc.fill_null(lengths, 0).to_numpy())) + 1
        raise DataError(f"{what} has {longest:,} bytes in row {row}, and at most {max_bytes:,} are read; shorten it")


def _converted(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return _converted(pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type))
    if pa.types.is_dictionary(kind):  # categories
        return _converted(column.cast(kind.value_type))
    if pa.types.is_run_end_encoded(kind):
        return _converted(pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], kind.value_type))
    if _is_text(kind):
        return column.cast(pa.large_string())
    if is_list_type(kind) and (_is_text(kind.value_type) or pa.types.is_dictionary(kind.value_type)):
        return column.cast(pa.large_list(pa.large_string()))
    if is_list_type(kind) and not pa.types.is_nested(kind.value_type):
        return column.cast(pa.large_list(kind.value_type))
    if pa.types.is_temporal(kind) or pa.types.is_decimal(kind):
        return column.cast(pa.large_string())
    return column


def _is_text(kind: pa.DataType) -> bool:
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def is_list_type(kind: pa.DataType) -> bool:
    """Return True for a type of lists."""
    return (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )
