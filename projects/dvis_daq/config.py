"""Config keys of DVIS-DAQ, with the defaults of the published code."""

from __future__ import annotations

from vidseg.config import CfgNode

__all__ = ["add_config"]


def add_config(cfg: CfgNode) -> None:
    """Adds the keys of the tracker, the refiner and the training of all stages to ``cfg``.

    Keys of published configs that nothing reads (noise injection...) are not here: the config
    loader accepts them and says that they have no effect.
    """
    # Tracker: layers of the anchor decoder and of the slot branch.
    cfg.MODEL.TRACKER = CfgNode()
    cfg.MODEL.TRACKER.DECODER_LAYERS = 6
    # Attention heads of the tracker; 0: as many as the frame decoder has, as published.
    cfg.MODEL.TRACKER.NHEADS = 0
    # Give an anchor the content of its frame query besides its position; published: position only.
    cfg.MODEL.TRACKER.ANCHORS_FROM_QUERIES = False
    # Start as a soft matcher with the frame decoder's heads; published training starts at random.
    cfg.MODEL.TRACKER.WARM_START = False

    # Temporal refiner.
    cfg.MODEL.REFINER = CfgNode()
    cfg.MODEL.REFINER.DECODER_LAYERS = 6
    # Start as the identity with the tracker's heads; published training starts at random.
    cfg.MODEL.REFINER.WARM_START = False
    # Frames outside a track's life take no part in time attention and in the class average.
    # Published checkpoints were trained without.
    cfg.MODEL.REFINER.USE_PADDING_MASK = False
    # MiB of what the refiner needs of a video's frames (mask features above all) that are kept in
    # memory, on the model's device; the rest goes to a temporary file in TMPDIR.
    cfg.MODEL.REFINER.MEMORY_MB = 64.0

    cfg.MODEL.VIDEO_HEAD = CfgNode()
    # Anchors for new objects per frame; must equal MODEL.MASK_FORMER.NUM_OBJECT_QUERIES.
    cfg.MODEL.VIDEO_HEAD.NUM_NEW_INS = 10
    # Background slots that compete with the tracks in the slot branch.
    cfg.MODEL.VIDEO_HEAD.NUM_SLOTS = 5
    # One-to-one assignment by which the slots start: "optimal", as published, asks the host in each
    # frame; "greedy" stays on the device.
    cfg.MODEL.VIDEO_HEAD.SLOT_ASSIGNMENT = "optimal"
    # Factor on the losses of the slot branch; 0 leaves the branch out of training, which wants
    # OVIS_INFER False.
    cfg.MODEL.VIDEO_HEAD.SLOT_LOSS_WEIGHT = 1.0
    # Tracks that enter the refiner.
    cfg.MODEL.VIDEO_HEAD.OFFLINE_TOPK_NUM = 20
    # Fill the refiner's input up to NUM_NEW_INS with naively linked frame queries.
    cfg.MODEL.VIDEO_HEAD.OFFLINE_FILL = True
    # Score above which a row is carried to the next frame in training (late phase).
    cfg.MODEL.VIDEO_HEAD.TRAINING_SELECT_THRESHOLD = 0.1
    # Score above which a track is visible, or a new object is born, at inference.
    cfg.MODEL.VIDEO_HEAD.INFERENCE_SELECT_THRESHOLD = 0.1
    # Score of the frame decoder above which a query of the first frame starts a track.
    cfg.MODEL.VIDEO_HEAD.AUX_INFERENCE_SELECT_THRESHOLD = 0.01
    # Shorter tracks are noise, unless they last to the end of the video.
    cfg.MODEL.VIDEO_HEAD.NOISE_FRAME_NUM = 1
    # Frames in a row without the object after which its track ends.
    cfg.MODEL.VIDEO_HEAD.KICK_OUT_FRAME_NUM = 8
    # New tracks per frame at most, best scores first; -1 for no limit.
    cfg.MODEL.VIDEO_HEAD.MAX_BIRTHS_PER_FRAME = -1
    # Mask IoU with a visible track, or with a better birth, from which a new row is no new object;
    # published results have no such test: 2.0 can never be reached.
    cfg.MODEL.VIDEO_HEAD.BIRTH_OVERLAP_THRESHOLD = 2.0
    # Let the slot branch decide, too, whether a tracked object is still there...
    cfg.MODEL.VIDEO_HEAD.OVIS_INFER = False
    # ... which it is above this score.
    cfg.MODEL.VIDEO_HEAD.DIS_FG_THRESHOLD = 0.01
    # Short convolutions along time in the refiner.
    cfg.MODEL.VIDEO_HEAD.USE_LOCAL_ATTN = False

    # Contrastive training of the frame segmenter (CTMinVIS).
    cfg.MODEL.CL_PLUGIN = CfgNode()
    # Weight of the loss on dot products of re-identification embeddings.
    cfg.MODEL.CL_PLUGIN.REID_WEIGHT = 2.0
    # Weight of the loss on their cosine similarities.
    cfg.MODEL.CL_PLUGIN.AUX_REID_WEIGHT = 3.0
    # Queries of the frame before that an object is told apart from, at most; drawn at random.
    cfg.MODEL.CL_PLUGIN.NUM_NEGATIVES = 99
    # Resemble, in half of the cases, the running mean of the object's embeddings, not the last one.
    cfg.MODEL.CL_PLUGIN.MOMENTUM_EMBED = True

    # Frames of a training clip that are used before and from each iteration of STEPS; None: all.
    cfg.INPUT.USING_FRAME_NUM = None
    # Iterations at which the tracker's training changes phase; None: always the late phase.
    cfg.INPUT.STEPS = None
