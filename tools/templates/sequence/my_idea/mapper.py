"""Records to samples, as the core makes them; every frame to train on needs a class."""

from __future__ import annotations

from vidseg.data import DATASET_MAPPER_REGISTRY, Record, Records, SequenceMapper
from vidseg.errors import DataError

__all__ = ["MyIdeaMapper"]


@DATASET_MAPPER_REGISTRY.register(name="my_idea_frames")
class MyIdeaMapper(SequenceMapper):
    """Tells the engine which key counts the classes, and takes no document without labels."""

    num_classes_key = "MODEL.MY_IDEA.NUM_CLASSES"

    def select(self, records: Records, name: str, *, drop_empty: bool) -> list[Record]:
        """Gives the records to train on.

        Raises:
            DataError: if one has no labels.
        """
        for record in records:
            if "labels" not in record:
                raise DataError(
                    f"{name}: document {record['video_id']!r} has no labels to train on; give it "
                    "some in the index, or leave it out"
                )
        return list(records)
