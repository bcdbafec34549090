"""How far an order of windows and lanes is from a full permutation, on data that were packed class by class.

Each figure is over what a full permutation gives on average: 1 is as random, less stratified, more clustered.
"""

from __future__ import annotations

import numpy as np

from data_pipeline.order import Order

SHARDS, EACH, BATCH, CLASSES = 3_072, 1_000, 256, 10
SIZE, LONG, LAGS = SHARDS * EACH, 64, (1, 64, 256)
VERDICT = """
Worse: windows over data that were packed in some order. A batch's counts then vary about
1 + (batch / lanes - 1) / window * (1 - window * lanes / shards) times as much, and those of many batches in a row
more, as these see few shards. Lanes help as windows do: with 16 shards in each of 64 lanes it is an eighth more
for a batch, though thirteen times for 64 in a row. As good: data that were packed shuffled, in any windows.
Better: lanes of one window each, as every batch then has its share of each stretch of shards.
"""
# heading → what it measures
COLUMNS = {
    "classes": "variance of how many of a class a batch holds",
    f"{LONG} batches": "the same of so many batches in a row",
    "shuffled": "the same of a batch, had the packing been shuffled",
    "means": "variance of a batch's mean of a value that drifts through the data as packed",
    "shards": "pairs in a batch that come from one shard",
    **{f"lag {lag}": "samples so far apart that come from one shard" for lag in LAGS},
    "neighbours": "pairs of neighbours, as packed, that meet in a batch",
    "distance": "how far such neighbours are apart in the epoch",
    "moved": "how far a sample is moved by the order",
}


def main() -> None:
    """A row for each kind of order."""
    print("| window | lanes |", " | ".join(COLUMNS), "|")
    print("|" + "---|" * (2 + len(COLUMNS)))
    for window in (1, 4, 16, 64, 0):
        for lanes in (1, 8, 64):
            epoch = Order(0, [EACH] * SHARDS, window, lanes).samples(np.arange(SIZE))
            print(f"| {window or 'all'} | {lanes} |", " | ".join(map(short, figures(epoch))), "|")
    print(f"{SHARDS:,} shards of {EACH:,} samples, sorted into {CLASSES} classes; batches of {BATCH}.")
    print(*(f"{name}: {meaning}" for name, meaning in COLUMNS.items()), VERDICT, sep="\n", end="")


def figures(epoch: np.ndarray) -> list[float]:
    """Of each column, for the samples of one epoch in their order."""
    classes, shards = epoch * CLASSES // SIZE, epoch // EACH
    shuffled = np.random.default_rng(1).permutation(SIZE)[epoch] * CLASSES // SIZE
    places = np.empty(SIZE, np.int64)
    places[epoch] = np.arange(SIZE)
    apart = np.abs(np.diff(places))[np.arange(1, SIZE) % EACH > 0]
    met = (np.diff(places // BATCH) == 0)[np.arange(1, SIZE) % EACH > 0]
    same = BATCH * (BATCH - 1) / 2 * (EACH - 1) / (SIZE - 1)  # pairs of one shard in a batch
    return [
        spread(classes, BATCH),
        spread(classes, BATCH * LONG),
        spread(shuffled, BATCH),
        float(means(epoch, BATCH).var() / (SIZE**2 / 12) / chance(BATCH)),
        pairs(shards) / same,
        *(float((shards[lag:] == shards[:-lag]).mean() * (SIZE - 1) / (EACH - 1)) for lag in LAGS),
        float(met.mean() * (SIZE - 1) / (BATCH - 1)),
        float(apart.mean() / (SIZE / 3)),
        float(np.abs(places - np.arange(SIZE)).mean() / (SIZE / 3)),
    ]


def short(value: float) -> str:
    """Three digits, and no exponent where there are more."""
    return f"{value:.3g}" if value < 1_000 else f"{value:,.0f}"


def spread(classes: np.ndarray, size: int) -> float:
    """The variance of the classes' shares of so many samples in a row, over the hypergeometric law's."""
    shares = np.stack([means(classes == number, size) for number in range(CLASSES)])
    law = chance(size) * (1 / CLASSES) * (1 - 1 / CLASSES)
    return float(((shares - 1 / CLASSES) ** 2).mean() / law)


def chance(size: int) -> float:
    """The variance of the mean of so many samples without replacement, over that of one."""
    return (SIZE - size) / (SIZE - 1) / size


def means(values: np.ndarray, size: int) -> np.ndarray:
    """Of each so many in a row; what is left over is dropped."""
    whole = SIZE // size
    return np.asarray(values[: whole * size].reshape(whole, size).mean(1))


def pairs(shards: np.ndarray) -> float:
    """How many pairs of samples of a batch come from one shard, on average."""
    together = np.arange(SIZE) // BATCH * SHARDS + shards
    counts = np.unique(together, return_counts=True)[1]
    return float((counts * (counts - 1) / 2).sum() / (SIZE / BATCH))


if __name__ == "__main__":
    main()
