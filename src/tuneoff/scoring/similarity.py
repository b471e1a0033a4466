"""Similarity of two representations of the same examples.

# N examples  H numbers of each
"""

import numpy as np


def linear_cka(first: np.ndarray, second: np.ndarray) -> float:
    """Centered kernel alignment with linear kernels. (N, H), (N, H) -> 1 for equal representations, 0 for unrelated.

    It does not change with a rotation or a scale of either. Source: Kornblith, Norouzi, Lee & Hinton, ICML 2019. With
    fewer examples than numbers the plain estimate is near 1 even for unrelated representations, so that HSIC is
    estimated without bias (Song, Smola, Gretton, Bedo & Borgwardt, JMLR 2012, equation 5), as Nguyen, Raghu & Kornblith
    (ICLR 2021) do; the estimate may be slightly below 0. NaN if a representation is the same for all examples.
    Raises ValueError for fewer than four examples, for which it is not defined.
    """
    if len(first) < 4:
        raise ValueError(f"linear_cka of {len(first)} examples; it needs at least 4")
    first_kernel, second_kernel = _kernel(first), _kernel(second)
    scale = _hsic(first_kernel, first_kernel) * _hsic(second_kernel, second_kernel)
    return float(_hsic(first_kernel, second_kernel) / np.sqrt(scale)) if scale > 0 else float("nan")


def _kernel(vectors: np.ndarray) -> np.ndarray:
    """Return the products of every two examples, 0 on the diagonal. (N, H) -> (N, N)."""
    centered = vectors.astype(np.float64) - vectors.mean(0, dtype=np.float64)
    products = centered @ centered.T
    np.fill_diagonal(products, 0.0)
    return products


def _hsic(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased estimate of the Hilbert-Schmidt independence criterion of two kernels. (N, N), 0 on the diagonal."""
    count = len(first)
    both = float((first * second).sum())
    sums = float(first.sum()) * float(second.sum()) / ((count - 1) * (count - 2))
    rows = 2 * float(first.sum(0) @ second.sum(0)) / (count - 2)
    return (both + sums - rows) / (count * (count - 3))
