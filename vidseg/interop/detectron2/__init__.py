"""vidseg beside detectron2: parts, configs, weights, data and evaluators go both ways.

::

    from vidseg.interop import detectron2 as d2

    d2.available()                  # whether detectron2 is there
    d2.register()                   # vidseg's models and parts into detectron2's registries
    d2.import_registered()          # detectron2's backbones into vidseg's, as d2/NAME
    d2.to_d2_config(cfg)            # and from_d2_config
    d2.adapt_model(model)           # list[dict] of detectron2 in, losses or predictions out
    d2.load_weights(model, path)    # files of either world
    d2.register_datasets(names)     # vidseg's data sets into detectron2's catalogs
    d2.TrainerMixin                 # vidseg's data, optimizer and evaluators for DefaultTrainer

This package is imported only on demand, and detectron2 only by what is called: where it is absent,
an ``ImportError`` says how to get it. A vidseg config needs no call at all:
``MODEL.BACKBONE.NAME d2/build_resnet_fpn_backbone`` finds its way here.

In detectron2, switch ``DATALOADER.ASPECT_RATIO_GROUPING`` off for clips: it groups by the width and
height of each item, which a list of frames does not share. Its ``TrainingSampler`` keeps no state:
a resumed run draws its clips from the beginning again. With ``TrainerMixin`` it goes on where it
stopped.
"""

from vidseg.plugins import lazy_exports

from .available import available

_MODULES = {
    "AdaptedEvaluator": "evaluation",
    "AdaptedModel": "samples",
    "TrainerMixin": "trainer",
    "VideoDatasetMapper": "loading",
    "adapt_evaluator": "evaluation",
    "adapt_model": "samples",
    "build_evaluator": "evaluation",
    "build_test_loader": "loading",
    "build_train_loader": "loading",
    "from_clip_instances": "structures",
    "from_d2_config": "config",
    "from_image_list": "structures",
    "from_sample": "samples",
    "import_registered": "registration",
    "load_weights": "weights",
    "register": "registration",
    "register_datasets": "datasets",
    "to_clip_instances": "structures",
    "to_d2_config": "config",
    "to_frame_instances": "structures",
    "to_image_list": "structures",
    "to_sample": "samples",
    "to_video_instances": "structures",
    "to_video_output": "structures",
}

__all__ = ["available", *_MODULES]

__getattr__, __dir__ = lazy_exports(__name__, _MODULES)
