"""Every key of the core with its default and its meaning.

Names and defaults are those of detectron2, Mask2Former and DVIS wherever one exists there; the
keys of a project stand in that project's ``config.py``. Published keys that nothing here reads
are in ``vidseg.config.published``.
"""

from __future__ import annotations

from vidseg.config.node import CfgNode

__all__ = ["CONFIG_VERSION", "get_cfg"]

CONFIG_VERSION = 2


def get_cfg() -> CfgNode:
    """Gives a fresh tree of the core's keys, to be changed at will."""
    cfg = CfgNode()
    cfg.VERSION = CONFIG_VERSION  # of the key names; 2 is detectron2's and the only one read
    cfg.OUTPUT_DIR = "./output"  # run directory: config, log, metrics, checkpoints, inference/
    cfg.SEED = 42  # of everything random in a run
    cfg.DETERMINISTIC = False  # ask torch for deterministic kernels, at a cost in speed
    cfg.WRITERS = ("jsonl", "tensorboard")  # where scalars go; wandb is a third
    cfg.CUDNN_BENCHMARK = False  # let cuDNN time its kernels for each input size
    cfg.MODEL = _model()
    cfg.INPUT = _input()
    cfg.DATASETS = _datasets()
    cfg.DATALOADER = _dataloader()
    cfg.SOLVER = _solver()
    cfg.TEST = _test()
    return cfg


def _model() -> CfgNode:
    node = CfgNode()
    node.META_ARCHITECTURE = "GeneralizedRCNN"  # name in META_ARCH_REGISTRY
    node.WEIGHTS = ""  # file of weights to start from; "" for none
    node.DEVICE = "auto"  # auto (cuda, mps or cpu, by what there is), or a torch device
    node.CHANNELS_LAST = False  # channels innermost in memory: quicker training, same result
    node.PIXEL_MEAN = [103.53, 116.28, 123.675]  # per channel, in the order of INPUT.FORMAT, 0..255
    node.PIXEL_STD = [1.0, 1.0, 1.0]  # same
    node.BACKBONE = CfgNode()
    node.BACKBONE.NAME = "build_resnet_backbone"  # or D2SwinTransformer, timm/N, d2/N ...
    # Parts of a ResNet or Swin that do not train: 0 none, 1 stem or patches, 2 also res2, ...
    node.BACKBONE.FREEZE_AT = 2
    node.BACKBONE.WEIGHTS = ""  # file of weights for the backbone alone; "" for none
    node.RESNETS = _resnets()
    node.FPN = _fpn()
    node.SWIN = _swin()
    node.VIT = _vit()
    node.MVIT = _mvit()
    node.VIT_ADAPTER = _vit_adapter()
    node.SEM_SEG_HEAD = _sem_seg_head()
    node.MASK_FORMER = _mask_former()
    return node


def _resnets() -> CfgNode:
    node = CfgNode()
    node.DEPTH = 50  # 18, 34, 50, 101 or 152
    node.OUT_FEATURES = ["res4"]  # of res2 (stride 4) to res5 (stride 32)
    node.NORM = "FrozenBN"  # FrozenBN, BN, SyncBN or GN
    node.NUM_GROUPS = 1  # groups of the 3x3 convolutions, above 1 for ResNeXt
    node.WIDTH_PER_GROUP = 64  # channels of a group in res2; doubles with every stage
    node.STRIDE_IN_1X1 = True  # stride in the 1x1 (MSRA weights) or in the 3x3 (torchvision's)
    node.STEM_OUT_CHANNELS = 64  # channels after the first convolution
    node.RES2_OUT_CHANNELS = 256  # channels of res2 (64 for depths 18 and 34); doubles every stage
    node.RES5_DILATION = 1  # 2 leaves res5 at stride 16 and spreads its kernels instead
    node.DEFORM_ON_PER_STAGE = [False, False, False, False]  # deformable 3x3 in res2 to res5
    node.DEFORM_MODULATED = False  # weigh their samples, too (second version)
    node.DEFORM_NUM_GROUPS = 1  # groups of channels that are deformed alike
    return node


def _fpn() -> CfgNode:
    node = CfgNode()  # of d2/build_resnet_fpn_backbone, d2/SwinTransformer and d2/MViT
    node.IN_FEATURES = []  # maps that the pyramid is built on; [] for none, where that is possible
    node.OUT_CHANNELS = 256  # channels of its maps p2, p3, ...; also of d2/SimpleFeaturePyramid
    node.NORM = ""  # norm of its convolutions; "" for none
    node.FUSE_TYPE = "sum"  # how levels are joined: sum or avg
    return node


def _swin() -> CfgNode:
    node = CfgNode()
    node.EMBED_DIM = 96  # channels of res2: 96 (T, S), 128 (B) or 192 (L); doubles with every stage
    node.DEPTHS = [2, 2, 6, 2]  # blocks of every stage; the third has 18 in S, B and L
    node.NUM_HEADS = [3, 6, 12, 24]  # attention heads of every stage
    node.WINDOW_SIZE = 7  # side of an attention window, in cells
    node.PATCH_SIZE = 4  # side of a cell of res2, in pixels
    node.MLP_RATIO = 4.0  # hidden channels of a block's MLP as a multiple of its width
    node.QKV_BIAS = True  # bias of queries, keys and values
    node.QK_SCALE = None  # factor on the attention logits; None: 1 / root of the head's width
    node.DROP_RATE = 0.0  # dropout of patches, projections and MLPs
    node.ATTN_DROP_RATE = 0.0  # dropout of attention weights
    node.DROP_PATH_RATE = 0.3  # share of samples that skip the last block in training; rises to it
    node.APE = False  # learned absolute positions
    node.PRETRAIN_IMG_SIZE = 224  # side of the image they were learned for, in pixels
    node.PATCH_NORM = True  # norm after the patch embedding
    node.USE_CHECKPOINT = False  # compute blocks again in the backward pass: less memory, more time
    node.OUT_FEATURES = ["res2", "res3", "res4", "res5"]  # of strides 4 to 32
    return node


def _vit() -> CfgNode:
    node = CfgNode()  # of d2/ViT and d2/SimpleFeaturePyramid; the base size of ViTDet
    node.IMG_SIZE = 1024  # side of the image that relative positions are made for, in pixels
    node.PATCH_SIZE = 16  # side of a patch, in pixels
    node.EMBED_DIM = 768  # width: 768 (B), 1024 (L) or 1280 (H)
    node.DEPTH = 12  # blocks: 12, 24 or 32
    node.NUM_HEADS = 12  # attention heads: 12, 16 or 16
    node.DROP_PATH_RATE = 0.1  # as of SWIN: 0.1, 0.4 or 0.5
    node.WINDOW_SIZE = 14  # side of an attention window, in patches
    node.WINDOW_BLOCK_INDEXES = [0, 1, 3, 4, 6, 7, 9, 10]  # blocks that attend within windows
    node.USE_REL_POS = True  # learned relative positions
    node.PRETRAIN_IMG_SIZE = 224  # side of the image that absolute positions were learned for
    node.NORM = "LN"  # norm of the pyramid's convolutions; "" for none
    return node


def _mvit() -> CfgNode:
    node = CfgNode()  # of d2/MViT; the tiny size of MViTv2
    node.IMG_SIZE = 224  # side of the image that relative positions are made for, in pixels
    node.EMBED_DIM = 96  # channels of res2; doubles with every stage
    node.DEPTH = 10  # blocks: 10 (T), 16 (S) or 24 (B)
    node.NUM_HEADS = 1  # attention heads in res2; doubles with every stage
    node.LAST_BLOCK_INDEXES = [0, 2, 7, 9]  # last block of every stage
    node.DROP_PATH_RATE = 0.2  # as of SWIN
    node.OUT_FEATURES = ["res2", "res3", "res4", "res5"]  # of strides 4 to 32
    return node


def _vit_adapter() -> CfgNode:
    node = CfgNode()
    node.NAME = "vitl"  # size of the DINOv2 ViT: vitb or vitl
    # File of the ViT's weights where no other file gives them: DINOv2's own, or "" for none.
    node.VIT_WEIGHT = "dinov2_vitl14_pretrain.pth"
    node.FREEZE_VIT = True  # only the adapter trains
    node.FINETUNE = False  # a frozen ViT trains in the blocks of FINETUNE_INDEXES all the same
    node.FINETUNE_INDEXES = [0]  # which quarters of the blocks, 0 to 3
    node.WITH_CP = True  # compute parts again in the backward pass: less memory, more time
    return node


def _sem_seg_head() -> CfgNode:
    node = CfgNode()
    node.NAME = "SemSegFPNHead"  # name in SEM_SEG_HEADS_REGISTRY: pixel plus transformer decoder
    node.NUM_CLASSES = 54  # object classes, "no object" not counted
    node.PIXEL_DECODER_NAME = "BasePixelDecoder"  # name in SEM_SEG_HEADS_REGISTRY
    node.IN_FEATURES = ["p2", "p3", "p4", "p5"]  # backbone features that the pixel decoder takes
    node.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES = ["res3", "res4", "res5"]  # attended ones
    node.CONVS_DIM = 128  # channels inside the pixel decoder
    node.MASK_DIM = 256  # channels of mask features and mask embeddings
    node.NORM = "GN"  # norm of the pixel decoder's convolutions; "" for none
    node.COMMON_STRIDE = 4  # stride of the mask features
    node.TRANSFORMER_ENC_LAYERS = 0  # deformable attention layers of the pixel decoder
    node.TRANSFORMER_ENC_DIM_FEEDFORWARD = 1024  # hidden channels of their feed-forward parts
    return node


def _mask_former() -> CfgNode:
    node = CfgNode()
    node.TRANSFORMER_DECODER_NAME = "MultiScaleMaskedTransformerDecoder"  # by registry name
    node.TRANSFORMER_IN_FEATURE = "res5"  # multi_scale_pixel_decoder for the masked decoder
    node.HIDDEN_DIM = 256  # channels of an object query
    node.NUM_OBJECT_QUERIES = 100  # per frame
    node.NHEADS = 8  # attention heads, here and in the pixel decoder
    node.DROPOUT = 0.1  # in the attention layers
    node.DIM_FEEDFORWARD = 2048  # hidden channels of feed-forward layers
    node.DEC_LAYERS = 6  # predictions of the decoder; it has one layer less
    node.PRE_NORM = False  # layer norm before each layer instead of after it
    node.ENFORCE_INPUT_PROJ = False  # project the input even where channels already agree
    node.SIZE_DIVISIBILITY = 32  # frames are padded to multiples of it, in pixels
    node.REID_BRANCH = True  # an extra embedding that tells objects apart
    node.REID_HIDDEN_DIM = 256  # its hidden channels
    node.NUM_REID_HEAD_LAYERS = 3  # its layers
    node.DEEP_SUPERVISION = True  # losses on the predictions of every layer
    node.NO_OBJECT_WEIGHT = 0.1  # of the "no object" class in the classification loss
    node.CLASS_WEIGHT = 1.0  # of the classification loss and matching cost
    node.MASK_WEIGHT = 20.0  # of the mask cross entropy, loss and cost
    node.DICE_WEIGHT = 1.0  # of the mask dice, loss and cost
    node.TRAIN_NUM_POINTS = 112 * 112  # points per mask at which mask losses are computed
    node.OVERSAMPLE_RATIO = 3.0  # candidates per point when looking for uncertain ones
    node.IMPORTANCE_SAMPLE_RATIO = 0.75  # share of uncertain points, the rest is uniform
    node.MATCH_ABSENT = True  # frame segmenter: an object not in a frame still takes a query there
    node.TEST = CfgNode()
    node.TEST.TASK = "vis"  # what a prediction is: vis (instances)
    node.TEST.MAX_NUM = 20  # instances per video at most
    node.TEST.WINDOW_SIZE = 3  # frames per window; bounds memory, never changes the result
    node.TEST.ONE_LABEL_PER_TRACK = False  # keep the best label only; published: several
    node.TEST.MASK_QUALITY = False  # score times mean mask probability; published: score alone
    return node


def _input() -> CfgNode:
    node = CfgNode()
    node.FORMAT = "BGR"  # channel order that the weights expect: BGR or RGB
    node.MIN_SIZE_TRAIN = (800,)  # lengths of the shorter side to draw from, in pixels
    node.MAX_SIZE_TRAIN = 1333  # bound of the longer side
    node.MIN_SIZE_TRAIN_SAMPLING = "choice"  # choice or range per frame, ..._by_clip per clip
    node.MIN_SIZE_TEST = 800  # shorter side in testing; 0 keeps the size
    node.MAX_SIZE_TEST = 1333  # bound of the longer side in testing
    node.RANDOM_FLIP = "horizontal"  # none, horizontal, flip, flip_by_clip
    node.AUGMENTATIONS = []  # more: brightness, contrast, saturation, rotation
    node.CROP = CfgNode()
    node.CROP.ENABLED = False  # crop half of the training clips at random
    node.CROP.TYPE = "relative_range"  # what SIZE means
    node.CROP.SIZE = [0.9, 0.9]  # height, width: fractions, or pixels if TYPE is absolute
    node.CROP.MIN_SIZES = (400, 500, 600)  # shorter sides to draw from before cropping; () as it is
    node.PSEUDO = CfgNode()  # clips made from one image
    node.PSEUDO.AUGMENTATIONS = ["rotation"]  # as above
    node.PSEUDO.MIN_SIZE_TRAIN = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768)  # as above
    node.PSEUDO.MAX_SIZE_TRAIN = 768  # as above
    node.PSEUDO.MIN_SIZE_TRAIN_SAMPLING = "choice_by_clip"  # as above
    node.PSEUDO.CROP = CfgNode()
    node.PSEUDO.CROP.ENABLED = False  # as above
    node.PSEUDO.CROP.TYPE = "absolute_range"  # as above; videos take type and size from here too
    node.PSEUDO.CROP.SIZE = (384, 600)  # smallest and largest side of the crop
    node.LSJ_AUG = CfgNode()
    node.LSJ_AUG.ENABLED = False  # large-scale jitter instead of resizing
    node.LSJ_AUG.IMAGE_SIZE = 1024  # side of the square it pads or crops to, in pixels
    node.LSJ_AUG.MIN_SCALE = 0.1  # smallest scale of the jitter
    node.LSJ_AUG.MAX_SCALE = 2.0  # largest
    node.SAMPLING_FRAME_NUM = 2  # frames of a training clip
    node.SAMPLING_FRAME_RANGE = 20  # how far from the reference frame the others may be
    node.SAMPLING_FRAME_SHUFFLE = False  # shuffle the frames of a training clip
    node.REVERSE_AGU = False  # reverse half of the contiguous clips (published spelling)
    node.SEQUENCE = CfgNode()  # documents: sequences of feature vectors
    node.SEQUENCE.NUM_FRAMES = 0  # frames of a random crop in training; 0 takes documents whole
    return node


def _datasets() -> CfgNode:
    node = CfgNode()
    node.TRAIN = ()  # names in the catalog, paths of json files or of folders of videos or features
    node.TEST = ()  # same
    node.DATASET_RATIO = [1.0]  # how often each of TRAIN is drawn, relative
    node.DATASET_NEED_MAP = [False]  # whether its classes go through the table to the last TRAIN
    # Mapper of each of TRAIN: video_instance, image_instance, or sequence for features.
    node.DATASET_TYPE = ["video_instance"]
    node.DATASET_TYPE_TEST = ["video_instance"]  # mapper of each of TEST
    return node


def _dataloader() -> CfgNode:
    node = CfgNode()
    node.NUM_WORKERS = 4  # loader processes per rank; 0 loads in the main process
    node.FILTER_EMPTY_ANNOTATIONS = True  # leave out videos without an object
    node.MAX_ATTEMPTS = 100  # clips in a row without anything to learn before the run stops
    return node


def _solver() -> CfgNode:
    node = CfgNode()
    node.INIT_FROM = ""  # config whose result this run starts from, relative to its own file
    node.OPTIMIZER = "ADAMW"  # ADAMW, ADAM (its decay is part of the gradient) or SGD
    node.MAX_ITER = 40000  # iterations of the run
    # Passes over the training sets instead; 0: MAX_ITER counts, as it does when it is set later (by
    # a file built on the one with MAX_EPOCHS, or on the command line).
    node.MAX_EPOCHS = 0
    node.IMS_PER_BATCH = 16  # clips per iteration over all ranks
    node.ACCUMULATION_STEPS = 1  # parts of a rank's share: nearly the same result, less memory
    node.REFERENCE_WORLD_SIZE = 0  # ranks that batch, rate and schedule were written for; 0 any
    node.BASE_LR = 0.001  # learning rate of IMS_PER_BATCH
    node.BACKBONE_MULTIPLIER = 0.1  # of the learning rate of the backbone
    node.MOMENTUM = 0.9  # SGD
    node.NESTEROV = False  # SGD
    node.WEIGHT_DECAY = 0.0001  # of weights
    node.WEIGHT_DECAY_NORM = 0.0  # of norm layers
    node.WEIGHT_DECAY_EMBED = 0.0  # of embedding tables
    node.LR_SCHEDULER_NAME = "WarmupMultiStepLR"  # or WarmupPolyLR, WarmupCosineLR
    node.GAMMA = 0.1  # multi-step: factor at each step
    node.STEPS = (30000,)  # multi-step: iterations at which the rate drops
    node.EPOCH_STEPS = ()  # multi-step: passes after which it drops instead; (): STEPS count
    node.POLY_LR_POWER = 0.9  # poly: exponent
    node.POLY_LR_CONSTANT_ENDING = 0.0  # poly: fraction of BASE_LR below which it stays there
    node.BASE_LR_END = 0.0  # cosine: last learning rate
    node.NUM_DECAYS = 3  # stepped decay: how many drops, evenly spaced
    node.RESCALE_INTERVAL = False  # fit the whole schedule into what the warm-up leaves
    node.WARMUP_FACTOR = 0.001  # of BASE_LR at the first iteration
    node.WARMUP_ITERS = 1000  # iterations until BASE_LR is reached
    node.WARMUP_METHOD = "linear"  # linear or constant
    node.CLIP_GRADIENTS = CfgNode()
    node.CLIP_GRADIENTS.ENABLED = False  # bound the gradients
    node.CLIP_GRADIENTS.CLIP_TYPE = "value"  # full_model (one norm over all), norm or value (each)
    node.CLIP_GRADIENTS.CLIP_VALUE = 1.0  # the bound
    node.CLIP_GRADIENTS.NORM_TYPE = 2.0  # which norm
    node.AMP = CfgNode()
    node.AMP.ENABLED = False  # automatic mixed precision, on any device
    node.AMP.DTYPE = "float16"  # float16 (with loss scaling) or bfloat16
    node.EMA = CfgNode()
    node.EMA.ENABLED = False  # evaluate and keep an exponential moving average of the weights
    node.EMA.DECAY = 0.999  # its share of the past per iteration
    node.LOG_PERIOD = 20  # iterations between log lines
    node.CHECKPOINT_PERIOD = 5000  # iterations between checkpoints
    node.KEEP_CHECKPOINTS = 3  # latest checkpoints to keep; -1 all
    node.PROFILE = CfgNode()
    # Record some iterations with torch.profiler: a trace in OUTPUT_DIR/profile/ and a table of the
    # operators that took longest in the log; with several processes, of the first one.
    node.PROFILE.ENABLED = False
    node.PROFILE.START_ITER = 10  # iterations before the first that is recorded
    node.PROFILE.NUM_ITERS = 3  # how many are recorded
    node.MAX_NAN_STEPS = 10  # steps in a row without a finite loss after which the run stops
    return node


def _test() -> CfgNode:
    node = CfgNode()
    node.EVALUATOR = ""  # name in EVALUATOR_REGISTRY; "" for the one that each data set names
    node.EXTRA_EVALUATORS = ()  # more names, such as tracking: they score the same predictions
    node.TRACKING = CfgNode()
    node.TRACKING.MIN_SCORE = 0.0  # evaluator tracking: tracks with a lower score are left out
    node.DAVIS = CfgNode()
    node.DAVIS.MIN_SCORE = 0.0  # evaluator davis: tracks with a lower score are left out
    node.DAVIS.MAX_TRACKS = 20  # the best that count; DAVIS allows 20
    node.EVAL_PERIOD = 0  # iterations between evaluations; 0 only at the end
    node.REPORT_VIDEOS = 8  # videos in the player of report.html, the worst ones; 0 writes none
    node.EXPECTED_RESULTS = []  # [task, metric, value, tolerance] checked after evaluation
    node.BEST_METRIC = ""  # e.g. segm/AP: its best checkpoints are kept; "" for none
    node.KEEP_BEST = 1  # how many best checkpoints
    node.PATIENCE = 0  # evaluations without a better BEST_METRIC before the run stops; 0 never
    return node
