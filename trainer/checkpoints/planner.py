"""What DCP is told of shards: each is a stretch of a flat tensor, whatever the engine cut."""

from __future__ import annotations

import io
import math
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import create_default_global_save_plan
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import (
    LoadPlan,
    LoadPlanner,
    ReadItem,
    SavePlan,
    SavePlanner,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list

from trainer.shard import Shard, Shards


class ShardSavePlanner(SavePlanner):
    """Saves each shard that a rank brings; no two ranks bring the same. DCP's own state dict stays empty."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards

    def set_up_planner(
        self, state_dict: dict[str, Any], storage_meta: StorageMeta | None = None, is_coordinator: bool = False
    ) -> None:
        assert not state_dict

    def create_local_plan(self) -> SavePlan:
        return SavePlan([write_item(key, shard) for key, shard in self.shards.items()])

    def create_global_plan(self, all_plans: list[SavePlan]) -> tuple[list[SavePlan], Metadata]:
        return create_default_global_save_plan(all_plans)

    def finish_plan(self, new_plan: SavePlan) -> SavePlan:
        return new_plan

    def resolve_data(self, write_item: WriteItem) -> Tensor:
        return self.shards[write_item.index.fqn].tensor


class ShardLoadPlanner(LoadPlanner):
    """Loads straight into the live shards, from the chunks that each of them overlaps."""

    def __init__(self, shards: Shards) -> None:
        self.shards = shards

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        assert metadata is not None
        self.saved = metadata.state_dict_metadata

    def create_local_plan(self) -> LoadPlan:
        wanted = {key: shard for key, shard in self.shards.items() if shard.tensor.numel()}
        return LoadPlan(
            [
                item
                for key, shard in wanted.items()
                for item in create_read_items_for_chunk_list(key, self.saved[key], [span(shard)])
            ]
        )

    def create_global_plan(self, global_plan: list[LoadPlan]) -> list[LoadPlan]:
        return global_plan

    def finish_plan(self, central_plan: LoadPlan) -> LoadPlan:
        return central_plan

    def resolve_tensor(self, read_item: ReadItem) -> Tensor:
        return self.shards[read_item.dest_index.fqn].tensor.narrow(
            0, read_item.dest_offsets[0], read_item.lengths[0]
        )

    def commit_tensor(self, read_item: ReadItem, tensor: Tensor) -> None:
        """It was read in place."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        raise AssertionError("a checkpoint holds tensors only")


def span(shard: Shard) -> ChunkStorageMetadata:
    """Where a shard lies in its flat tensor."""
    return ChunkStorageMetadata(torch.Size([shard.start]), torch.Size([shard.tensor.numel()]))


def write_item(key: str, shard: Shard) -> WriteItem:
    """A shard as DCP plans it."""
    data = TensorWriteData(span(shard), TensorProperties(torch.float32), torch.Size([math.prod(shard.shape)]))
    return WriteItem(MetadataIndex(key, [shard.start]), WriteItemType.SHARD, tensor_data=data)
