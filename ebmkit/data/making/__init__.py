"""Making WebDataset shards from folders, archives, torchvision's data sets and the embedded digits."""

from ebmkit.data.making.make import make_shards

__all__ = ["make_shards"]
