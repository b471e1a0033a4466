"""Script of the process that tries an untrusted tokenizer.json: load it, and tokenize texts that bad rules act on.

It imports nothing of this package, so that it starts at once.
"""

import sys

MEMORY_BYTES = 4 * 2**30
CPU_SECONDS = 8  # the largest published tokenizers take 3
TEXTS = (
    "The quick brown fox jumps over the lazy dog, doesn't it? 12.5 % of 1,000!",
    *("a" * 40 + "!", "a" * 2000, "A" * 40 + "1", "1" * 2000, " " * 2000, "\n" * 500, "!" * 500, "é" * 500),
    "aA1 " * 500,
    "",
)


def main(file: str) -> None:
    """Exit with code 1, and the reason on standard output, for a tokenizer that cannot be used."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
    except (ImportError, ValueError, OSError):  # Windows has no such limit
        pass
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(file)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        for text in TEXTS:
            tokenizer.encode(text)
            tokenizer.encode(text, text)
    except BaseException as error:  # tokenizers raises a PanicException, which is no Exception
        print(" ".join(str(error).split()) or type(error).__name__)
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
