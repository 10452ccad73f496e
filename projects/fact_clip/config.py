"""Config keys of FACT and FACT_CLIP, by their published names and with their published defaults.

Keys in lower case at the top and the sections ``FACT``, ``Bi``, ``Bu``, ``BU``, ``Loss`` and ``TM``
are those of the published FACT code (Lu and Elhamifar, CVPR 2024); ``CLIP`` is new.
"""

from __future__ import annotations

from vidseg.config import CfgNode

__all__ = ["add_config"]


def add_config(cfg: CfgNode) -> None:
    """Adds the keys of data, model, losses and text alignment to ``cfg``."""
    cfg.sr = 1  # take every sr-th frame; the label is the majority of sr frames
    cfg.eval_bg = False  # count background as a class in accuracy, edit score and F1
    # Background classes, a list of numbers or names; None: class 0; []: there are none.
    cfg.bg_class = None
    # Segments (match o2o) or distinct classes (o2m) of a training video on average, for the weight
    # of the null class; 0: counted in the training labels.
    cfg.average_transcript_len = 0.0
    cfg.FACT = _fact()
    cfg.Bi = _input_block()
    cfg.Bu = _update_block()
    cfg.BU = _update_block()
    cfg.BU.s_layers = 1  # layers of the GRU over segments
    cfg.Loss = _loss()
    cfg.TM = _time_masking()
    cfg.CLIP = _clip()
    cfg.TEST.ACTIONS = _test()


def _fact() -> CfgNode:
    node = CfgNode()
    node.input_dim = 0  # width of the features; 0: that of the training set
    node.n_classes = 0  # classes with background; 0: those of the training set
    node.drop_columns = []  # features that the model must not see, by number: they are set to 0
    node.standardize = False  # bring features to mean 0 and variance 1 over the training set
    node.ntoken = 30  # action tokens
    node.block = "iuUU"  # i input, u update, U update with segments; I and U with verbs and nouns
    node.trans = False  # the transcript (classes of the segments in order) is an input
    node.fpos = True  # sinusoidal positions of frames
    node.cmr = 0.3  # share of the input channels that training masks in a whole video
    node.noise = 0.0  # standard deviation of noise on the features in training, once standardised
    node.warp = 0.0  # bound of the logarithm of the speed at which training plays a video
    node.segment_warp = 0.0  # and of the speed of each of its segments
    node.mwt = 0.1  # weight of the frame branch when branches are merged, in [0, 1]
    # Verb and noun of each class, for META_ARCHITECTURE FACTVerbNoun: a csv file with the columns
    # class, verb and noun, or a folder with verb_mapping.txt and noun_mapping.txt
    node.verb_noun = ""
    return node


def _input_block() -> CfgNode:
    node = CfgNode()
    node.hid_dim = 512  # width of the branches' outputs, whose last channels are class logits
    node.dropout = 0.5  # in both branches and the attention between them
    node.a = "sca"  # action branch: sca; gru or gru_om with a transcript
    node.a_nhead = 8  # its attention heads
    node.a_ffdim = 2048  # inner width of its feed-forward blocks
    node.a_layers = 6  # its layers
    node.a_dim = 512  # width of the action tokens
    node.f = "m"  # frame branch: m (MS-TCN) or m2 (MS-TCN++); published: cnn, which does not exist
    node.f_layers = 10  # the dilation doubles with each
    node.f_ln = True  # layer norm after each; MS-TCN only
    node.f_dim = 512  # width inside the frame branch
    node.f_ngp = 4  # groups of its dilated convolutions
    return node


def _update_block() -> CfgNode:
    node = CfgNode()  # None: as in the section last in force
    node.hid_dim = None  # as above; all blocks must agree
    node.dropout = None  # as above
    node.a = "sa"  # action branch: self-attention
    node.a_nhead = None  # as above
    node.a_ffdim = None  # as above
    node.a_layers = 1  # as above
    node.a_dim = None  # as above; all blocks must agree
    node.f = None  # as above
    node.f_layers = 5  # as above
    node.f_ln = None  # as above
    node.f_dim = None  # as above
    node.f_ngp = None  # as above
    return node


def _loss() -> CfgNode:
    node = CfgNode()
    node.match = "o2o"  # tokens to segments: o2o, o2m (a token may serve several), seq (transcript)
    node.pc = 1.0  # weight of the class probability in the matching cost
    node.a2fc = 1.0  # weight of the attention's overlap in the matching cost
    node.bgw = 1.0  # weight of background in the losses
    node.nullw = -1.0  # weight of the null class of tokens; -1: by the number of tokens left over
    node.sw = 0.0  # weight of the smoothing loss
    node.published_weights = False  # weigh matched pairs by the wrong segment, as published
    return node


def _time_masking() -> CfgNode:
    node = CfgNode()
    node.use = False  # set spans of frames to zero in training
    node.t = 30  # a span is shorter than this, in frames
    node.p = 0.05  # and than this share of the video
    node.m = 5  # spans at most
    return node


def _clip() -> CfgNode:
    node = CfgNode()
    node.enable = True  # of META_ARCHITECTURE FACT_CLIP: False trains FACT alone
    node.text_provider = "words"  # words, hash, file, sentence, open_clip or transformers_clip
    # Embeddings (file), weights (open_clip), else the folder of a model; as given, or below the
    # data set root
    node.text_file = ""
    # A published model: NAME/TAG for open_clip, as ViT-B-32/laion2b_s34b_b79k; OWNER/NAME of the
    # hub for transformers_clip; "": the provider's usual one
    node.text_model = ""
    node.templates = ["{}"]  # prompts of encoders; a class is the mean of their unit vectors
    node.name_map = []  # what to call classes in prompts: ["old name=new name", ...]
    node.embed_dim = 0  # width E of the text embeddings; 0: what the provider gives
    node.proj_hidden = 512  # inner width of the projection of frames
    node.proj_dropout = 0.1  # within it
    node.feature = "frame_noprob"  # or frame: with the channels of the closed-set probabilities
    node.blocks = [-1]  # blocks whose frame features are aligned; the last of the list predicts
    node.temperature = 0.07  # divides the cosines in the contrastive loss
    node.learn_temperature = False  # by gradient, not below 0.01
    node.weight = 1.0  # of the contrastive loss
    node.t2v_mode = "supcon"  # text to video: supcon, exclude or logsum
    node.ignore_bg = False  # leave background frames out of the contrastive loss
    node.unseen = []  # classes without training labels, by name; or [FILE.json:KEY]
    node.unseen_mode = "mask"  # mask their frames, or drop the videos that show them
    # Subtracted from the cosines of seen classes (calibrated stacking); None: what was chosen on
    # calibration_set, also by the run that this one starts from, else 0.
    node.gamma = None
    node.pseudo_unseen = []  # seen classes that train like unseen ones, to find gamma
    node.calibration_set = ""  # data set on whose videos gamma is chosen when training ends
    node.smoothing = "none"  # of the zero-shot labels: none, segments, median or viterbi
    node.min_duration = 1  # frames of a segment at least (median, viterbi)
    return node


def _test() -> CfgNode:
    node = CfgNode()
    node.NUM_PICTURES = -1  # videos of a data set that are drawn as timelines; -1: all
    return node
