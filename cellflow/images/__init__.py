"""Sets of images: read from files, held in memory or streamed, with their labels and their pixels."""

from cellflow.images.levels import Levels
from cellflow.images.pixels import Conversion, scaled, to_bytes
from cellflow.images.reading import read_images
from cellflow.images.sets import Images, ImageSet
from cellflow.images.streams import ImageStream, stream_images

__all__ = [
    "Conversion",
    "ImageSet",
    "ImageStream",
    "Images",
    "Levels",
    "read_images",
    "scaled",
    "stream_images",
    "to_bytes",
]
