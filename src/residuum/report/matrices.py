"""Confusion matrices for a reader: cell by cell while that can be taken in, else the pairs most often confused."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from residuum.records import Matrix, Table

MOST_DRAWN = 150
"""Classes a side of the largest matrix that is drawn."""
MOST_NUMBERED = 20
"""Classes a side of the largest matrix with a number in each cell."""


@dataclass(frozen=True)
class MatrixCell:
    """A count; how strongly it is shaded, 0 to 1; and whether the classes of row and column are the same."""

    count: int
    shade: float
    right: bool


def is_drawn(matrix: Matrix) -> bool:
    """Whether the matrix is shown cell by cell; beyond 150 classes nobody sees a cell of it."""
    return max(matrix.values.shape) <= MOST_DRAWN


def is_numbered(matrix: Matrix) -> bool:
    """Whether its cells have room for a number."""
    return max(matrix.values.shape) <= MOST_NUMBERED


def matrix_cells(matrix: Matrix) -> list[list[MatrixCell]]:
    """The cells, row by row. The shade is the cube root of the share of the row, so that one in a hundred shows."""
    shades, right = np.cbrt(_shares(matrix)), _right(matrix)
    return [
        [MatrixCell(*cell) for cell in zip(*row, strict=True)]
        for row in zip(matrix.values.tolist(), shades.tolist(), right.tolist(), strict=True)
    ]


def confused_pairs(matrix: Matrix, most: int = 30) -> Table:
    """The `most` pairs of different classes with the most images, most first; a tie in the matrix's order."""
    wrong = np.where(_right(matrix), 0, matrix.values)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [np.unravel_index(place, wrong.shape) for place in order.tolist() if wrong.flat[place]]
    shares = _shares(matrix)
    return Table(
        f"The {len(pairs)} most confused pairs" if pairs else "No two classes are confused",
        (matrix.row_label, matrix.column_label, "images", "share of the class [%]"),
        tuple(
            (matrix.rows[row], matrix.columns[column], int(wrong[row, column]), 100 * float(shares[row, column]))
            for row, column in pairs
        ),
    )


def _right(matrix: Matrix) -> NDArray[np.bool_]:
    return np.array(matrix.rows, object)[:, None] == np.array(matrix.columns, object)[None, :]


def _shares(matrix: Matrix) -> NDArray[np.float64]:
    """Each count as a share of its row, 0 in an empty row."""
    return matrix.values / np.maximum(matrix.values.sum(axis=1, keepdims=True), 1)
