"""Biases of scores by the distance between query and key, in buckets (T5, Raffel et al. 2020)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class DistanceBias:
    """weight: a tensor [buckets, heads]. bucket_of: int64 [2 * reach + 1], the bucket of each
    distance key - query from -reach to reach; those further away are in the same as these.
    """

    weight: str
    buckets: int
    bucket_of: Tensor

    @property
    def reach(self) -> int:
        return len(self.bucket_of) // 2

    def table(self, weight: Tensor) -> Tensor:
        """float32 [heads, 2 * reach + 1]: what each distance adds to a score."""
        return weight.float()[self.bucket_of.to(weight.device)].T.contiguous()


def buckets_of(count: int, reach: int, *, both_sides: bool) -> Tensor:
    """The bucket of each distance from -reach to reach, of `count` buckets.

    Half of them hold one distance each, the others grow with its logarithm. both_sides: keys behind
    the query have buckets of their own; otherwise there are none. 1 <= count / 4, and count / 2 <
    reach.
    """
    distances = torch.arange(-reach, reach + 1)
    ahead = torch.zeros_like(distances)
    if both_sides:
        count //= 2
        ahead = (distances > 0) * count
        distances = distances.abs()
    else:
        distances = -distances.clamp(max=0)
    exact = count // 2
    grown = torch.log(distances.float() / exact) / math.log(reach / exact) * (count - exact)
    # The logarithm of zero, which is exact, has no integer.
    far = exact + torch.where(distances < exact, 0.0, grown).long()
    return ahead + torch.where(distances < exact, distances, far.clamp(max=count - 1))
