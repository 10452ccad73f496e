"""Config keys of object persistence. Every option that the baseline lacks is off by default."""

from __future__ import annotations

from vidseg.config import CfgNode

__all__ = ["add_config"]


def add_config(cfg: CfgNode) -> None:
    """Adds the keys of detector, clips, model and evaluation to ``cfg``."""
    cfg.MODEL.PERSISTENCE = CfgNode()
    _add_detector(cfg.MODEL.PERSISTENCE)
    _add_tokenizer(cfg.MODEL.PERSISTENCE)
    _add_tracker(cfg.MODEL.PERSISTENCE)
    _add_transformer(cfg.MODEL.PERSISTENCE)
    _add_losses(cfg.MODEL.PERSISTENCE)
    _add_clips(cfg.INPUT)
    _add_evaluation(cfg.TEST)


def _add_detector(parent: CfgNode) -> None:
    parent.DETECTOR = CfgNode()
    node = parent.DETECTOR
    node.BACKEND = "torch"  # or "skimage": blob_log itself, with the same results
    # "max" of the colour channels, so that red is as strong as white; "luma"; or "dark", one minus
    # the smallest channel, for dark objects on light ground.
    node.GREY = "max"
    node.MIN_SIGMA = 1.5  # pixels; the radius of a blob is the root of 2 times its sigma
    node.MAX_SIGMA = 4.0  # pixels
    node.NUM_SIGMA = 6  # scales between the two
    node.LOG_SCALE = False  # space the scales evenly in their logarithm
    node.THRESHOLD = 0.15  # of the response, for images in [0, 1]
    node.OVERLAP = 0.5  # share of the smaller disc from which on the smaller blob is dropped
    node.MAX_PER_FRAME = 64  # detections kept of a frame, by confidence
    node.EXPECTED_RADIUS = 0.0  # pixels; 0: geometric mean of the radius range
    # Exponents of brightness, circularity and size in the confidence; they sum to 1.
    node.CONFIDENCE_WEIGHTS = [0.5, 0.3, 0.2]


def _add_tokenizer(parent: CfgNode) -> None:
    node = parent
    node.PATCH = 14  # side of the patch around a blob, in pixels
    node.PATCH_SCALE = False  # cut 2.5 radii instead and resample them to 16 pixels
    node.PATCH_GREY = False  # tokens without colour
    # Of patches: "cnn", or a backbone: resnet18, timm/NAME, torchvision/NAME or of the registry; it
    # takes the file of MODEL.BACKBONE.WEIGHTS, and MODEL.PIXEL_* and INPUT.FORMAT that fit it.
    node.ENCODER = "cnn"
    node.ENCODER_SIZE = 32  # pixels; side to which patches are resized for a backbone
    node.FREEZE_ENCODER = False  # leave the weights of the backbone as they are
    node.TIME = "sinusoidal"  # code of the frame index: or "learned", "none"
    node.POSITION = "absolute"  # code of (y, x): or "none"
    node.MAX_FRAMES = 128  # rows of the learned time code
    node.MAX_TOKENS = 2048  # tokens of a clip; the least confident of more are left out, counted


def _add_tracker(parent: CfgNode) -> None:
    parent.TRACKER = CfgNode()
    node = parent.TRACKER
    node.GATE = 3.0  # pixels from the predicted place, at a frame height of 64; grows with gaps
    node.APPEARANCE_WEIGHT = 0.5  # of the cosine distance between mean colours
    node.MAX_GAP = 3  # frames from one detection of a track to its next, at most
    node.MIN_PRESENCE = 0.7  # share of the frames from which on a track counts as persistent


def _add_transformer(parent: CfgNode) -> None:
    node = parent
    node.HIDDEN_DIM = 256  # channels of a token
    node.NUM_LAYERS = 2  # encoder layers, 2 to 6
    node.NHEADS = 8  # attention heads
    node.DIM_FEEDFORWARD = 512  # inner width of the feed-forward networks
    node.DROPOUT = 0.1  # of attention weights and of what the blocks add
    # Bias of attention by pairs of tokens: "none", "plain" (gap, distance, ...), or "motion", which
    # adds the distance after motion compensation.
    node.RELATIVE_BIAS = "none"
    node.MOTION_GATE = 3.5  # pixels to the token of the next frame that gives the motion
    node.TRACK_BIAS = False  # bias by "same track of the Hungarian tracker"
    node.NULL_KEY = False  # a learned logit per head that tokens may attend to instead
    node.QUERIES = 0  # learned object queries beside the tokens; 0 for none
    node.QUERY_LAYERS = 2  # decoder layers of the object queries
    # A learned query whose attention over tokens is reported; it needs ATTENTION_WEIGHT above 0.
    node.SUMMARY_QUERY = False


def _add_losses(parent: CfgNode) -> None:
    node = parent
    node.CLASS_BALANCE = True  # weigh the classes of a batch to equal mass
    node.DURATION_WEIGHT = 0.0  # of the smooth L1 loss on the visible share of the clip
    node.ATTENTION_WEIGHT = 0.0  # of the supervision of attention
    node.CONTRASTIVE_WEIGHT = 0.0  # of the InfoNCE loss between tokens
    node.CONTRASTIVE = "object"  # positives: tokens of one object, or of one "class"
    node.CONTRASTIVE_TEMPERATURE = 0.1  # that cosine similarities are divided by
    node.QUERY_WEIGHT = 1.0  # of the losses of the object queries, if there are any


def _add_clips(parent: CfgNode) -> None:
    parent.PERSISTENCE = CfgNode()
    node = parent.PERSISTENCE
    node.MIN_TRANSIENT = 0  # least number of transient objects in a generated clip
    node.LABEL_NOISE = 0.0  # share of the objects of training clips with the wrong label
    # Of training clips, on the detections:
    node.FLIP = True  # flips and transposition at random
    node.TIME_REVERSAL = True  # of every second clip
    node.BRIGHTNESS = 0.2  # largest relative change
    node.NOISE = 0.02  # standard deviation, of [0, 1]
    node.TOKEN_DROPOUT = 0.03  # share of the detections that are left out
    node.JITTER = 0.3  # standard deviation of the centres, in pixels
    node.COLOR_JITTER = 0.0  # strength of a random recolouring of all objects, 0 to 1
    node.CACHE = True  # keep detections of generated clips on disk


def _add_evaluation(parent: CfgNode) -> None:
    parent.PERSISTENCE = CfgNode()
    node = parent.PERSISTENCE
    node.NUM_PICTURES = 4  # clips of a data set that are drawn with their attention
    node.WINDOW_FRAMES = 16  # of a longer video that the model sees at once, as many as in training
    node.BOOTSTRAP = 1000  # resamplings of the clips behind the confidence intervals
