"""Data: from snapshots to batches of pairs."""

from cellflow.batch import Batch
from cellflow.data.clock import Clock
from cellflow.data.pairing import PairedBatches, paired_batches, snapshot_batches

__all__ = ["Batch", "Clock", "PairedBatches", "paired_batches", "snapshot_batches"]
