"""vidseg's models under detectron2's builder and trainer, and its backbones in vidseg's configs."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import CHECKOUT
from tests.engine.support import make_dataset
from tests.interop import real
from tests.test_readme import README, blocks
from vidseg.config import CfgNode, load_config
from vidseg.config.node import leaves
from vidseg.interop import detectron2 as d2
from vidseg.modeling import BACKBONE_REGISTRY, build_backbone, build_model
from vidseg.modeling.backbone import ResNet
from vidseg.solver.schedule import schedule_factor
from vidseg.structures import ClipInstances

pytestmark = real.MARKS

STAGES = ["res2", "res3", "res4", "res5"]
LEVELS = ["p2", "p3", "p4", "p5"]
SLIM = {
    "MODEL.RESNETS.OUT_FEATURES": STAGES,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.SWIN.EMBED_DIM": 12,
    "MODEL.SWIN.DEPTHS": [1, 1, 1, 1],
    "MODEL.VIT.EMBED_DIM": 24,
    "MODEL.VIT.DEPTH": 2,
    "MODEL.VIT.NUM_HEADS": 2,
    "MODEL.VIT.IMG_SIZE": 64,
    "MODEL.VIT.WINDOW_BLOCK_INDEXES": [0],
    "MODEL.MVIT.EMBED_DIM": 8,
    "MODEL.MVIT.DEPTH": 4,
    "MODEL.MVIT.LAST_BLOCK_INDEXES": [0, 1, 2, 3],
}


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forgets what a test put into the registries of either world."""
    from detectron2 import modeling

    monkeypatch.setattr(BACKBONE_REGISTRY, "_objects", dict(BACKBONE_REGISTRY._objects))
    for name in ("META_ARCH_REGISTRY", "BACKBONE_REGISTRY", "SEM_SEG_HEADS_REGISTRY"):
        registry = getattr(modeling, name)
        monkeypatch.setattr(registry, "_obj_map", dict(registry._obj_map))


def typed(cfg: Any) -> dict[str, Any]:
    return {key: (type(value), value) for key, value in leaves(cfg)}


def backbone_keys(name: str, *, fpn: bool) -> list[Any]:
    words: list[Any] = ["MODEL.BACKBONE.NAME", f"d2/{name}", "MODEL.DEVICE", "cpu"]
    for key, value in SLIM.items():
        words += [key, value]
    return [*words, "MODEL.FPN.IN_FEATURES", STAGES] if fpn else words


def test_every_shared_key_has_their_type(tiny_cfg: Callable[..., CfgNode]) -> None:
    from detectron2.config import get_cfg

    cfg = tiny_cfg("dvis_daq", "offline")
    ours, theirs = dict(leaves(cfg)), dict(leaves(get_cfg()))
    shared = ours.keys() & theirs.keys()
    assert len(shared) > 70
    assert {k for k in shared if type(ours[k]) is not type(theirs[k])} == set()
    there = d2.to_d2_config(cfg)
    assert typed(d2.from_d2_config(there)) == typed(cfg)
    # The merge that they offer themselves says the same of every key.
    merged = get_cfg()
    merged.set_new_allowed(True)
    merged.merge_from_other_cfg(cfg)
    assert typed(merged) == typed(there)


def test_their_config_comes_back_complete() -> None:
    from detectron2.config import get_cfg

    before = get_cfg()
    before.MODEL.RETINANET.NUM_CLASSES = 3
    before.SOLVER.STEPS = (7,)
    after = d2.to_d2_config(d2.from_d2_config(before))
    assert typed(before).items() <= typed(after).items()


def test_everything_is_registered() -> None:
    from detectron2.modeling import META_ARCH_REGISTRY

    names = d2.register()
    assert d2.register() == names
    models = {"MinVIS", "CTMinVIS", "MaskFormer", "DVIS_DAQ_online", "DVIS_DAQ_offline"}
    assert models | {"vidseg.build_resnet_backbone", "D2SwinTransformer"} <= set(names)
    assert models <= {name for name, _ in META_ARCH_REGISTRY}


@pytest.mark.parametrize("stage", ["segmenter", "online", "offline"])
def test_build_model_gives_our_models(stage: str, tiny_cfg: Callable[..., CfgNode]) -> None:
    from detectron2.modeling import build_model as build

    d2.register()
    cfg = tiny_cfg("dvis_daq", stage)
    torch.manual_seed(0)
    theirs = build(d2.to_d2_config(cfg)).eval()
    torch.manual_seed(0)
    ours = build_model(cfg).eval()
    assert list(theirs.state_dict()) == list(ours.state_dict())
    frames = torch.randint(0, 255, (3, 3, 48, 64), dtype=torch.uint8)
    expected = ours([{"frames": frames, "height": 48, "width": 64}])[0]
    image = frames.flip(1) if cfg.INPUT.FORMAT == "BGR" else frames
    found = theirs([{"image": list(image), "height": 48, "width": 64, "video_id": 1}])
    assert found["pred_scores"] == expected.scores.tolist()
    for mask, wanted in zip(found["pred_masks"], expected.masks_tensor(), strict=True):
        assert mask.equal(wanted)


def test_default_trainer_trains_and_resumes_by_config_alone(tmp_path: Path) -> None:
    from detectron2.engine import DefaultTrainer, default_setup

    json_file = str(make_dataset(tmp_path / "data", num_videos=3))
    d2.register()
    cfg = d2.to_d2_config(
        real.small_cfg(DATASETS__TRAIN=[json_file], OUTPUT_DIR=str(tmp_path / "run"))
    )
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.CHECKPOINT_PERIOD = 2, (), 1

    class Trainer(d2.TrainerMixin, DefaultTrainer):  # type: ignore[misc]
        pass

    default_setup(cfg, None)
    trainer = Trainer(cfg)
    start = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    end = trainer.model.state_dict()
    assert any(not torch.equal(start[name], end[name]) for name in start)
    assert trainer.storage.history("total_loss").latest() > 0

    cfg.SOLVER.MAX_ITER = 3
    resumed = Trainer(cfg)
    resumed.resume_or_load(resume=True)
    assert resumed.start_iter == 2
    batch = next(iter(resumed._trainer.data_loader))
    third = next(islice(iter(resumed.build_train_loader(cfg)), 2, None))
    assert [item["video_id"] for item in batch] == [item["video_id"] for item in third]
    assert all(map(torch.equal, batch[0]["image"], third[0]["image"]))  # goes on in the data
    assert all(torch.equal(v, end[k]) for k, v in resumed.model.state_dict().items())
    resumed.train()
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_final.pth"
    # The config that they write beside the run is one that vidseg reads.
    assert load_config(tmp_path / "run" / "config.yaml").MODEL.META_ARCHITECTURE == "MinVIS"


@pytest.mark.parametrize(
    ("name", "fpn", "features"),
    [
        ("build_resnet_backbone", False, STAGES),
        ("build_resnet_fpn_backbone", True, LEVELS),
        ("SwinTransformer", False, STAGES),
        ("SwinTransformer", True, LEVELS),
        ("MViT", False, STAGES),
        ("MViT", True, LEVELS),
        ("SimpleFeaturePyramid", False, LEVELS),
    ],
)
@pytest.mark.filterwarnings("ignore:Importing from timm.models.layers:FutureWarning")
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_their_backbones_learn_in_our_models(name: str, fpn: bool, features: list[str]) -> None:
    cfg = real.small_cfg()
    cfg.merge_from_list(
        [
            *backbone_keys(name, fpn=fpn),
            *("MODEL.RESNETS.DEPTH", 50, "MODEL.MASK_FORMER.SIZE_DIVISIBILITY", 32),
            *("MODEL.SEM_SEG_HEAD.IN_FEATURES", features),
            "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES",
            features[1:],
        ]
    )
    model = build_model(cfg)
    shapes = model.backbone.output_shape()
    with torch.no_grad():
        maps = model.backbone(torch.randn(1, 3, 64, 96))
    assert [name for name in maps if name in features] == features
    for key, shape in shapes.items():
        size = (shape.channels, -(-64 // shape.stride), -(-96 // shape.stride))
        assert tuple(maps[key].shape[1:]) == size
    before = {key: value.clone() for key, value in model.state_dict().items()}
    _train_one_step(model.train())
    moved = [key for key, value in model.state_dict().items() if not value.equal(before[key])]
    assert any(key.startswith("backbone.") for key in moved)
    assert any(key.startswith("sem_seg_head.") for key in moved)
    found = model.eval()([{"frames": torch.zeros(2, 3, 48, 64), "height": 48, "width": 64}])[0]
    assert found.image_size == (48, 64)


def _train_one_step(model: torch.nn.Module) -> None:
    masks = torch.zeros(1, 2, 64, 96, dtype=torch.bool)
    masks[..., 10:40, 20:60] = True
    instances = ClipInstances(masks, torch.tensor([0]), torch.ones(1, 2, dtype=torch.bool))
    frames = torch.randint(0, 255, (2, 3, 64, 96), dtype=torch.uint8)
    sample = {"frames": frames, "height": 64, "width": 96, "instances": instances, "video_id": 1}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = model([sample])
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    optimizer.step()


def test_swin_gives_the_numbers_of_ours() -> None:
    """One network under two interfaces: their weights fit ours by name."""
    slim = [word for key, value in SLIM.items() for word in (key, value)]
    theirs = build_backbone(load_config(None, backbone_keys("SwinTransformer", fpn=False))).eval()
    ours = build_backbone(load_config(None, [*slim, "MODEL.BACKBONE.NAME", "D2SwinTransformer"]))
    ours.eval().load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 72, 104)
    with torch.no_grad():
        expected = ours(x)
        for name, value in theirs(x).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-4)
    frozen = [*backbone_keys("SwinTransformer", fpn=False), "MODEL.BACKBONE.FREEZE_AT", 2]
    learnt = []
    for words in (frozen, [*frozen, "MODEL.BACKBONE.NAME", "D2SwinTransformer"]):
        parameters = build_backbone(load_config(None, words)).named_parameters()
        learnt.append({name for name, parameter in parameters if parameter.requires_grad})
    assert learnt[0] == learnt[1]


@pytest.mark.parametrize("fpn", [False, True])
def test_files_of_classifiers_fill_their_swin(fpn: bool, tmp_path: Path) -> None:
    slim = [word for key, value in SLIM.items() for word in (key, value)]
    ours = build_backbone(load_config(None, [*slim, "MODEL.BACKBONE.NAME", "D2SwinTransformer"]))
    trunk = {name: v for name, v in ours.state_dict().items() if not name.startswith("norm")}
    torch.save({"model": {**trunk, "head.weight": torch.zeros(2)}}, tmp_path / "swin.pth")
    theirs: Any = build_backbone(load_config(None, backbone_keys("SwinTransformer", fpn=fpn)))
    assert theirs.load_pretrained(tmp_path / "swin.pth") == ["head.weight"]
    prefix = "bottom_up." if fpn else ""
    loaded = theirs.state_dict()
    assert all(loaded[f"{prefix}{name}"].equal(value) for name, value in trunk.items())


def test_dilated_resnet_gives_the_numbers_of_ours() -> None:
    words = [*backbone_keys("build_resnet_backbone", fpn=False), "MODEL.RESNETS.RES5_DILATION", 2]
    theirs = build_backbone(load_config(None, words)).eval()
    ours = build_backbone(
        load_config(None, [*words, "MODEL.BACKBONE.NAME", "build_resnet_backbone"])
    )
    ours.eval().load_state_dict(theirs.state_dict())
    assert ours.output_shape() == theirs.output_shape()
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = ours(x)["res5"]
        assert (theirs(x)["res5"] - expected).abs().max() < 1e-5 * expected.abs().max()


def test_deformable_names_are_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The operation itself is in their compiled part; its block names the weights."""
    from detectron2.modeling.backbone import resnet

    class Operation(torch.nn.Conv2d):
        def __init__(self, *args: Any, norm: Any, deformable_groups: int, **options: Any) -> None:
            super().__init__(*args, **options)
            self.norm = norm

    monkeypatch.setattr(resnet, "ModulatedDeformConv", Operation)
    stages = [False, False, False, True]
    ours = ResNet(50, deform_stages=stages, deform_modulated=True, deform_groups=2)
    theirs = resnet.DeformBottleneckBlock(
        1024,
        2048,
        bottleneck_channels=512,
        stride=2,
        norm="FrozenBN",
        deform_modulated=True,
        deform_num_groups=2,
    )
    shapes = {name: value.shape for name, value in theirs.state_dict().items()}
    found = {name: value.shape for name, value in ours.res5[0].state_dict().items()}
    assert found == shapes


def test_their_fpn_stands_on_our_backbone() -> None:
    from detectron2.modeling import FPN
    from detectron2.modeling import build_backbone as build

    d2.register()
    words = {"MODEL.BACKBONE.NAME": "D2SwinTransformer", **SLIM}
    cfg = d2.to_d2_config(load_config(None, [w for pair in words.items() for w in pair]))
    bottom_up = build(cfg)
    pyramid = FPN(bottom_up, STAGES, 16)
    maps = pyramid(torch.randn(1, 3, 64, 96))
    assert {name: tuple(m.shape[-2:]) for name, m in maps.items()} == {
        "p2": (16, 24),
        "p3": (8, 12),
        "p4": (4, 6),
        "p5": (2, 3),
    }
    sum(m.sum() for m in maps.values()).backward()
    learnt = [p for p in bottom_up.parameters() if p.requires_grad]
    assert learnt
    assert all(p.grad is not None for p in learnt)


def test_their_detector_stands_on_our_backbone() -> None:
    """Mask R-CNN with a vidseg backbone, in place of its own of the same name."""
    from detectron2.modeling import build_model as build

    d2.register(overwrite=True)
    cfg = d2.to_d2_config(load_config(None, ["MODEL.DEVICE", "cpu"]))
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.NORM = 50, "BN"
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 4
    model = build(cfg).eval()
    assert type(model.backbone).__module__.startswith("vidseg.")
    image = torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        found = model([{"image": image, "height": 32, "width": 32}])[0]["instances"]
    assert found.image_size == (32, 32)
    assert len(found) == len(found.pred_classes)


def _tiny_run(tmp_path: Path) -> list[str]:
    json_file = str(make_dataset(tmp_path / "data", num_videos=2))
    keys = {
        "DATASETS.TRAIN": (json_file,),
        "DATASETS.TEST": (json_file,),
        "MODEL.DEVICE": "cpu",
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 1,
        "INPUT.MIN_SIZE_TRAIN": (48,),
        "INPUT.MIN_SIZE_TEST": 48,
        "DATALOADER.NUM_WORKERS": 0,
        "SOLVER.MAX_ITER": 2,
        "SOLVER.IMS_PER_BATCH": 1,
        "OUTPUT_DIR": str(tmp_path / "run"),
    }
    return [str(word) for pair in keys.items() for word in pair]


def test_the_example_of_the_readme_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = next(block for block in blocks(README, "python") if "vidseg.interop" in block)
    whole = 'load_config("examples/first_minute.yaml")'
    assert whole in shown
    tiny = f'load_config("examples/first_minute.yaml", {_tiny_run(tmp_path)!r})'
    monkeypatch.chdir(CHECKOUT)
    exec(shown.replace(whole, tiny), {"__name__": "example"})
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.json").open()]
    assert any("segm/AP" in row for row in rows)
    cfg = load_config(tmp_path / "run" / "config.yaml")
    wanted = [cfg.SOLVER.BASE_LR * schedule_factor(cfg)(index) for index in range(2)]
    assert [row["lr"] for row in rows if "lr" in row] == pytest.approx(wanted[-1:])
    assert list((tmp_path / "run" / "inference").glob("*/results.json"))
    assert (tmp_path / "run" / "model_final.pth").is_file()


def test_the_command_of_the_readme_trains_on_their_backbone(tmp_path: Path) -> None:
    """Nothing but keys says that the backbone is of the other world."""
    text = "".join(blocks(README, "sh")).replace("\\\n", " ")
    line = next(line for line in text.splitlines() if "train_net.py" in line)
    _, words = line.split("train_net.py")
    command = [sys.executable, "tools/train_net.py", *shlex.split(words), *_tiny_run(tmp_path)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert any("total_loss" in row for row in rows)
    saved = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)
    names = saved.get("model", saved)
    assert any(name.startswith("backbone.bottom_up.res2.") for name in names)


def test_our_optimizer_clips_under_their_trainer() -> None:
    cfg = load_config(None, ["SOLVER.CLIP_GRADIENTS.ENABLED", True])
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    model = torch.nn.Linear(3, 2)
    optimizer = d2.TrainerMixin.build_optimizer(d2.to_d2_config(cfg), model)
    model(torch.full((4, 3), 10.0)).sum().backward()
    optimizer.step()
    norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
    assert float(norm) == pytest.approx(0.5, rel=1e-4)
