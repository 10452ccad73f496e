"""A project in one file: the frame segmenter, reporting only what is seen for long enough."""

from vidseg.config import CfgNode
from vidseg.modeling import META_ARCH_REGISTRY
from vidseg.modeling.meta_arch.frame_segmenter import FrameSegmenter


def add_config(cfg):
    """Adds this project's keys."""
    cfg.MODEL.LONG_TRACKS = CfgNode()
    cfg.MODEL.LONG_TRACKS.MIN_FRAMES = 5  # shorter tracks are left out


@META_ARCH_REGISTRY.register()
class LongTracks(FrameSegmenter):
    """Drops short tracks; everything else is inherited."""

    def __init__(self, *, min_frames, **segmenter):
        super().__init__(**segmenter)
        self.min_frames = min_frames

    @classmethod
    def from_config(cls, cfg):
        """Reads the key above."""
        return {**super().from_config(cfg), "min_frames": cfg.MODEL.LONG_TRACKS.MIN_FRAMES}

    def forward(self, samples):
        """Gives losses in training, ``VideoInstances`` per video in eval."""
        result = super().forward(samples)
        return result if self.training else [self.select(tracks) for tracks in result]

    def select(self, tracks):
        """Keeps the tracks that have a mask in enough frames."""
        lengths = [sum(mask is not None for mask in masks) for masks in tracks.masks]
        return tracks[[length >= self.min_frames for length in lengths]]
