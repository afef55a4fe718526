"""Data: from snapshots and images to batches of pairs."""

from cellflow.batch import Batch
from cellflow.data.clock import Clock
from cellflow.data.diffusion import suggest_sigma
from cellflow.data.image_batches import ImageBatches, image_batches
from cellflow.data.image_stream import ImageStream, stream_images
from cellflow.data.images import Images, ImageSet, read_images
from cellflow.data.metric import RadialMetric, radial_metric
from cellflow.data.pairing import PairedBatches, paired_batches, snapshot_batches
from cellflow.data.pixels import Conversion, scaled, to_bytes

__all__ = [
    "Batch",
    "Clock",
    "Conversion",
    "ImageBatches",
    "ImageSet",
    "ImageStream",
    "Images",
    "PairedBatches",
    "RadialMetric",
    "image_batches",
    "paired_batches",
    "radial_metric",
    "read_images",
    "scaled",
    "snapshot_batches",
    "stream_images",
    "suggest_sigma",
    "to_bytes",
]
