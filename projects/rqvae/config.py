"""Config keys of RQ-VAE. Defaults are those of the classes, but k-means is on; presets differ."""

from __future__ import annotations

from vidseg.config import CfgNode

__all__ = ["add_config"]


def add_config(cfg: CfgNode) -> None:
    """Adds the keys of the model, its training and its retrieval to ``cfg``."""
    cfg.MODEL.RQVAE = CfgNode()
    node = cfg.MODEL.RQVAE

    # Sizes.
    node.INPUT_DIM = 1024  # width of the features
    node.LATENT_DIM = 256  # width of encoder, pooling and decoder
    node.NHEAD = 8  # attention heads of encoder and decoder, a divisor of LATENT_DIM
    node.DIM_FEEDFORWARD = 0  # inner width of the feed-forward blocks; 0: four times LATENT_DIM
    node.NUM_ENCODER_LAYERS = 4  # blocks of self-attention over the frames
    node.NUM_DECODER_LAYERS = 4  # even: every block of the decoder counts as two, as published
    node.DROPOUT = 0.1  # in encoder and decoder
    # Frames that are processed at once, and entries of the learned table of frame positions.
    node.MAX_SEQ_LEN = 512
    # Frames to each side that the encoder's attention sees, in every layer; 0: the whole document.
    # Documents longer than MAX_SEQ_LEN need it: their codes must not depend on how they are cut.
    node.ENCODER_CONTEXT = 0
    node.FRAME_RATE = 50.0  # frames per second, where the data set does not say

    # Windows and pooling.
    node.POOLING_TYPE = "sliding_window"  # or "global": one window over the whole document
    node.WINDOW_SIZE = 25  # frames
    node.WINDOW_STRIDE = 12  # frames from one window to the next
    # "same": centred windows, one per stride; "tail": as few as cover all; "drop": whole ones only.
    node.WINDOW_MODE = "same"
    node.ALLOW_GAPS = False  # allow a stride beyond the window, which leaves frames out
    node.MIN_VALID_FRAMES = 1  # with which a window counts
    node.POOLING_HIDDEN_DIM = 128  # inner width of the attention over the frames of a window
    node.HEADS = 1  # attention maps per window, each with its own statistics
    node.POSITION_BIAS = False  # learn a bias of every head for the place within the window
    node.WINDOW_PROJECTION = False  # add a linear map of the window's frames to what is pooled

    # Quantiser.
    node.CODEBOOK_SIZE = 512  # entries of a codebook
    node.NUM_CODEBOOKS = 8  # levels, each quantising what the ones before have left
    node.CODE_DIM = 64  # width of the codes; 0: LATENT_DIM, quantised as it is
    node.COMMITMENT_COST = 0.25  # factor on the loss that draws the encoder to its codes
    node.DECAY = 0.9  # share of the past in the averages that make up the codebooks
    node.GRADIENT = "straight_through"  # or "rotation": what passes the quantiser backwards
    node.KMEANS_INIT = True  # start the codebooks by k-means over the training set
    node.KMEANS_MIN_VECTORS = 0  # gather at least so many; 0: 20 for every entry of a codebook
    node.KMEANS_ITERS = 20  # Lloyd steps per level
    # Share of the schedule that is trained without quantisation, before k-means.
    node.WARMUP_FRACTION = 0.35
    node.REVIVE_EVERY = 20  # steps between two looks for dead codes; 0: never
    node.REVIVE_THRESHOLD = 0.1  # share of the mean usage below which a code counts as dead
    node.QUANTIZER_DROPOUT = 0.0  # probability that a batch uses a random number of levels

    # Decoder.
    # Frames to each side that the decoder's self-attention sees; 0: all that are decoded at once.
    node.DECODER_CONTEXT = 0
    node.MEMORY_POSITIONS = True  # tell the decoder where the windows are; the sketch did not
    node.LOCAL_MEMORY = False  # a frame sees only windows within WINDOW_SIZE + WINDOW_STRIDE of it
    node.OVERLAP_ADD = False  # start the decoder from frames laid out by every window
    node.OVERLAP_ADD_DIM = 64  # width of these frames

    # Losses, besides the mean squared error of 1.
    node.LOSS_COSINE = 0.0  # factor on 1 - cosine of frame and reconstruction
    node.LOSS_DELTA = 0.0  # factor on the squared error of first differences over time

    # Retrieval.
    node.RETRIEVAL = CfgNode()
    node.RETRIEVAL.BAG_LEVELS = 2  # levels whose codes count in the bag of codes
    node.RETRIEVAL.NUM_QUERIES = 16  # of method C: means of windows that make up a vector
    node.RETRIEVAL.DIM = 256  # width of that vector; 0 puts the means side by side
    node.RETRIEVAL.TEMPERATURE = 0.1  # divides the cosines of the contrastive loss
    node.RETRIEVAL.DOCUMENTS_PER_STEP = 128  # that the contrastive loss tells apart
    node.RETRIEVAL.MIN_CROP = 0.05  # least share of a document that one of its two crops takes
    node.RETRIEVAL.MAX_CROP = 0.3  # largest share, up to half
