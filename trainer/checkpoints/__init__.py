"""Checkpoints: saved by any engine on any number of ranks, loaded by any other.

    checkpoints/000001280000/rank-00000.safetensors …   what each rank wrote: fp32 tensors, or stretches of them
                             manifest.json              images, cursor, config, versions, where every element lies

Every tensor is kept as its elements, counted row by row, under kind/name: parameters, Adam's moments, each
average. So whatever an engine cuts is a stretch, and for each stretch that is wanted torch.distributed.checkpoint
(DCP) finds the ones that were saved. What several ranks hold is written by one of them. Nothing is ever unpickled.
"""
