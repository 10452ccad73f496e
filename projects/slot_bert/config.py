"""Config keys of slot_bert. The defaults are the published phase 1: single frames, MSE alone."""

from __future__ import annotations

from vidseg.config import CfgNode

__all__ = ["add_config"]


def add_config(cfg: CfgNode) -> None:
    """Adds the keys of model, losses, clips and evaluation to ``cfg``."""
    cfg.MODEL.SLOT_BERT = CfgNode()
    _add_encoder(cfg.MODEL.SLOT_BERT)
    _add_features(cfg.MODEL.SLOT_BERT)
    _add_attention(cfg.MODEL.SLOT_BERT)
    _add_decoder(cfg.MODEL.SLOT_BERT)
    _add_transformer(cfg.MODEL.SLOT_BERT)
    _add_losses(cfg.MODEL.SLOT_BERT)
    _add_clips(cfg.INPUT)
    _add_evaluation(cfg.TEST)


def _add_encoder(parent: CfgNode) -> None:
    parent.ENCODER = CfgNode()
    node = parent.ENCODER
    node.NAME = "conv"  # or "pyramid"; "backbone": features of MODEL.BACKBONE, frozen
    node.STRIDES = [2, 2, 2, 2]  # of the blocks, or of the two levels; their product is 2 to 16
    node.CHANNELS = [48, 96, 192, 384]  # of the blocks, or of fine and coarse level and output
    node.DILATIONS = [1, 2, 4]  # of the blocks of a pyramid's coarse level after the first
    node.BF16 = False  # the convolutions in bfloat16, also where SOLVER.AMP is off
    node.NORM = "BN"  # or "GN", "none"
    node.POSITION = "fourier"  # or "learned", "none"
    node.POSITION_SIZE = [8, 8]  # tokens of the learned table
    node.INPUT_DIFF = False  # three times the difference to the frame before as more channels


def _add_features(parent: CfgNode) -> None:
    parent.FEATURES = CfgNode()
    node = parent.FEATURES  # of MODEL.BACKBONE, frozen: as encoder, and as target of two losses
    node.MAPS = ["res4"]  # of the backbone
    node.SCALE = 1.0  # enlarge frames before, for finer maps
    node.STRIDE = 0  # pixels from token to token, maps are resized; 0 for that of the finest map
    node.DIM = 0  # width of a learned linear map before the tokens; 0 for none
    node.CACHE = 0  # MiB of features that training keeps, for frames that come again


def _add_attention(parent: CfgNode) -> None:
    parent.ATTENTION = CfgNode()
    node = parent.ATTENTION
    node.NUM_SLOTS = 7  # of a frame; slots without an object share the background
    node.SLOT_DIM = 128  # numbers of a slot
    node.ITERS = 3  # of a frame by itself, or of the first frame of a clip
    node.EVAL_ITERS = 0  # 0: as many as in training
    node.HEADS = 1  # softmax jointly over heads and slots
    node.MLP_RATIO = 4  # hidden width of the network on each slot, relative to SLOT_DIM
    node.TEMPERATURE = 1.0  # that divides the logits, beside the root of the width
    node.IMPLICIT = False  # gradient through the last iteration alone
    node.POSITION_TERM = False  # tokens count less the farther they are from the centre of a slot
    node.COLOR_TERM = False  # tokens count less the more they differ from the colour of a slot
    node.LUMA = 1.0  # of brightness beside chroma in these colours; 1 is plain RGB
    node.INIT = "random"  # or "gaussian", "learned", "boxes"
    node.SIGMA = 1.0  # spread of the random slots at the start; small ones stay equal
    node.SHARED_NOISE = False  # one draw for all frames of a clip
    node.EVAL_SEED = 0  # of the random slots in evaluation
    parent.TIME = CfgNode()
    node = parent.TIME
    node.MODE = "independent"  # or "recurrent": a frame starts from the slots of the one before
    node.ITERS_NEXT = 1  # iterations of the later frames in recurrent mode
    # Between two frames: or "norm", which bounds slots; "transformer", a block over the slots.
    node.PREDICTOR = "none"
    node.LINK = False  # reorder slots by mask and content after the fact, in evaluation


def _add_decoder(parent: CfgNode) -> None:
    parent.DECODER = CfgNode()
    node = parent.DECODER
    node.NAME = "broadcast"  # or "mlp", the fast one
    node.SIZE = 128  # pixels of a side of the reconstruction
    node.CHANNELS = 16  # width of the layers
    node.SUBSAMPLE = 1.0  # share of the pixels that a training step decodes; mlp only
    parent.COMPOSE = "attn"  # masks of the composition: or "decoder", "both"
    parent.ATTN_REC = 0.3  # weight of the second reconstruction of "both"
    parent.DETACH_DECODER = False  # the reconstruction trains the decoder alone
    parent.MASK_SOURCE = "attn"  # masks of the segmentation: or "decoder", "product"


def _add_transformer(parent: CfgNode) -> None:
    parent.TRANSFORMER = CfgNode()
    node = parent.TRANSFORMER
    node.ENABLED = False  # phase 2
    node.NUM_LAYERS = 3  # pre-norm layers
    node.NUM_HEADS = 4  # a divisor of SLOT_DIM
    node.FFN_RATIO = 4  # width of the feed-forward networks, relative to SLOT_DIM
    node.AXIS = "time"  # or "factorised": every other layer over the slots of a frame; or "joint"
    node.POSITION = "sinusoidal"  # or "learned", interpolated for other lengths
    node.POSITION_LENGTH = 24  # frames of the learned table
    node.SLOT_IDENTITY = False  # add a learned code of the slot
    node.MASK_RATIO = 0.2  # of the frames, in training
    node.MASK_UNIT = "frame"  # or "slot", "span", "last"
    node.FILL = "interpolation"  # what stands for a masked slot beside the mask token; or "none"
    node.WINDOW = 24  # frames read at once; longer clips are read in windows
    node.STRIDE = 12  # frames from one window to the next
    node.START = 0.0  # fraction of the run before which training leaves the transformer out
    node.WARMUP = 0.2  # share of the run, from there on, that trains the transformer alone


def _add_losses(parent: CfgNode) -> None:
    parent.LOSS = CfgNode()
    node = parent.LOSS  # weights first; what weighs 0 is not computed
    node.RECONSTRUCTION = 1.0  # squared error of the composed frame
    node.ORTHOGONALITY = 0.0  # squared cosines between the slots of a frame
    node.ENTROPY = 0.0  # of the masks, 0 where each position has one slot
    node.COVERAGE = 0.0  # slots without area, less what an even spread over the batch earns
    node.APPEARANCE = 0.0  # spread of the colours within a mask
    node.FEATURES = 0.0  # reconstruction of frozen features
    node.FEATURE_APPEARANCE = 0.0  # appearance in frozen features
    node.DISTILLATION = 0.0  # teach the masks of the decoder those of attention
    node.MASKED_SLOTS = 0.0  # of the temporal transformer: predict masked slots
    node.TIME_CONTRAST = 0.0  # the same slot in the next frame against all of the batch
    node.FRAME_CONTRAST = 0.0  # a slot against the others of its frame
    node.MASKS = "attn"  # that entropy, coverage and appearance look at: or "decoder"
    node.SCOPE = "frame"  # of the mean colours and features: or "clip"
    node.POS_WEIGHT = 0.0  # of coordinates beside colours or features in the appearance
    node.LUMA = 1.0  # of brightness beside chroma in the appearance; 1 is plain RGB
    # Above 0, slot 0 is the background: what its coordinates cost, wherever they are.
    node.BACKGROUND = 0.0
    # Ramps [name, start, end, from, to] in fractions of the run, in the place of a weight above,
    # POS_WEIGHT among them.
    node.SCHEDULE = []


def _add_clips(parent: CfgNode) -> None:
    parent.SLOT_BERT = CfgNode()
    node = parent.SLOT_BERT
    node.SIZE = [128, 128]  # height and width that frames are reduced to; [0, 0] leaves them
    node.NUM_FRAMES = 1  # of a training clip
    node.FLIP = 0.5  # chance of a mirrored clip
    node.VERTICAL_FLIP = 0.0  # chance of one that is upside down
    node.MOVING_SHAPES = CfgNode()
    node.MOVING_SHAPES.SEED = 0  # another number gives other clips of the same kind
    node.MOVING_SHAPES.NUM_CLIPS = 500  # to train on
    node.MOVING_SHAPES.NUM_FRAMES = 24  # of a whole clip


def _add_evaluation(parent: CfgNode) -> None:
    parent.SLOT_BERT = CfgNode()
    node = parent.SLOT_BERT
    node.FIRST_FRAME = True  # score the first frame of a clip too
    node.NUM_PICTURES = 2  # clips of each data set that are drawn
    node.BASELINES = True  # k-means and the ceiling of the mask grid beside the model
    node.BOOTSTRAP = 1000  # resamplings of the clips behind the intervals; 0 for none
