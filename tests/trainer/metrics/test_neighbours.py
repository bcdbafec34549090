"""Nearest neighbours, against scikit-learn's."""

from __future__ import annotations

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from trainer.metrics.neighbours import nearest


@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
def test_they_are_those_of_scikit_learn_whatever_the_chunk(chunk):
    drawn = torch.Generator().manual_seed(0)
    pool, queries = torch.randn(40, 2, 3, 3, generator=drawn), torch.randn(5, 2, 3, 3, generator=drawn)
    queries[0] = pool[17]
    found = nearest(queries, pool, 4, lambda x: x.flatten(1), chunk)
    theirs = NearestNeighbors(n_neighbors=4).fit(pool.flatten(1).double().numpy())
    distances, rows = theirs.kneighbors(queries.flatten(1).double().numpy())
    assert found.rows.tolist() == rows.tolist()
    assert torch.allclose(found.distances, torch.from_numpy(distances), atol=1e-9)
    assert (int(found.rows[0, 0]), float(found.distances[0, 0])) == (17, 0)


def test_they_are_those_in_the_space_of_the_features():
    pool = torch.tensor([[1.0, 0.0], [0.0, 5.0], [4.0, 4.0]]).reshape(3, 2, 1, 1)
    query = torch.tensor([0.9, 5.0]).reshape(1, 2, 1, 1)
    in_first = nearest(query, pool, 1, lambda x: x[:, 0].flatten(1))
    in_second = nearest(query, pool, 1, lambda x: x[:, 1].flatten(1))
    assert (int(in_first.rows), int(in_second.rows)) == (0, 1)


@pytest.mark.parametrize("count", [0, 4])
def test_more_than_there_are_is_refused(count):
    with pytest.raises(ValueError, match=rf"count must lie in 1 \.\. 3, the images there are, got {count}"):
        nearest(torch.zeros(1, 1, 1, 1), torch.zeros(3, 1, 1, 1), count, lambda x: x.flatten(1))
