"""Settings of FACT: null keys, and errors that name what to change."""

from __future__ import annotations

from typing import Any

import pytest

from vidseg.config import CfgNode, get_cfg
from vidseg.errors import ConfigError
from vidseg.projects.fact_clip.config import add_config
from vidseg.projects.fact_clip.settings import TimeMasking, settings_of


def config(*pairs: Any) -> CfgNode:
    cfg = get_cfg()
    add_config(cfg)
    cfg.merge_from_list(list(pairs))
    return cfg


def test_null_keys_take_the_section_last_in_force() -> None:
    cfg = config("Bi.f_dim", 64, "Bu.f_dim", 32, "Bi.f_ngp", 1, "Bu.dropout", 0.25)
    by_order = {
        blocks: [(b.f_dim, b.dropout) for b in settings_of(_with(cfg, blocks), 9).blocks]
        for blocks in ("iuUU", "iUu", "iUuU")
    }
    assert by_order["iuUU"] == [(64, 0.5), (32, 0.25), (32, 0.25), (32, 0.25)]
    assert by_order["iUu"] == [(64, 0.5), (64, 0.5), (32, 0.25)]
    assert by_order["iUuU"] == [(64, 0.5), (64, 0.5), (32, 0.25), (64, 0.5)]
    assert cfg.BU.f_dim is None


def _with(cfg: CfgNode, blocks: str) -> CfgNode:
    changed = cfg.clone()
    changed.FACT.block = blocks
    return changed


def test_all_settings_arrive() -> None:
    cfg = config("TM.use", True, "TM.t", 7, "TM.p", 0.2, "TM.m", 3, "BU.s_layers", 2)
    cfg.merge_from_list(["FACT.cmr", 0.2, "FACT.mwt", 0.7, "FACT.ntoken", 12, "FACT.fpos", False])
    settings = settings_of(cfg, 9)
    assert settings.time_masking == TimeMasking(7, 0.2, 3)
    assert (settings.cmr, settings.mwt, settings.ntoken, settings.fpos) == (0.2, 0.7, 12, False)
    assert [block.s_layers for block in settings.blocks] == [1, 1, 2, 2]
    assert [block.a for block in settings.blocks] == ["sca", "sa", "sa", "sa"]
    assert settings_of(config(), 9).time_masking is None


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (("FACT.block", "ixU"), ("FACT.block", "'x'", "i (input), u, U")),
        (("FACT.block", "i"), ("FACT.block", "update block", "iU")),
        (("FACT.block", ""), ("FACT.block", "start with i")),
        (("FACT.block", "uU"), ("FACT.block", "start with i")),
        (("FACT.block", "iui"), ("FACT.block", "only once")),
        (("FACT.block", "IU"), ("FACT.block", "'I'")),
        (("FACT.ntoken", 0), ("FACT.ntoken is 0", "1 or more")),
        (("FACT.cmr", 1.0), ("FACT.cmr", "below 1")),
        (("FACT.mwt", 1.2), ("FACT.mwt", "0 to 1")),
        (("FACT.noise", -0.5), ("FACT.noise is -0.5", "negative")),
        (("Bi.f", "cnn"), ("Bi.f is 'cnn'", "m, m2")),
        (("Bi.a", "scaa"), ("Bi.a is 'scaa'", "nearest: sca")),
        (("Bu.a", "sca"), ("Bu.a is 'sca'", "sa")),
        (("Bi.a", "gru_om"), ("Bi.a is gru_om", "FACT.trans True")),
        (("FACT.trans", True, "Bi.a", "gru", "Bi.a_dim", 256), ("Bi.a_dim", "gru_om")),
        (("Bi.f", "m2"), ("Bi.f_ln", "f_ln False")),
        (("Bi.hid_dim", 8), ("Bi.hid_dim is 8", "9 class logits")),
        (("Bi.hid_dim", 511), ("Bi.hid_dim is 511", "even")),
        (("Bi.a_nhead", 7), ("Bi.a_nhead is 7", "divisor")),
        (("Bi.f_ngp", 3), ("Bi.f_ngp is 3", "divisor")),
        (("Bi.dropout", 1.0), ("Bi.dropout", "below 1")),
        (("Bu.hid_dim", "wide"), ("Bu.hid_dim wants", "'wide'")),
        (("BU.f_ln", 3), ("BU.f_ln wants", "3")),
        (("Bi.hid_dim", None), ("Bi.hid_dim",)),
        (("Bu.f_layers", 0), ("Bu.f_layers is 0", "1 or more")),
        (("BU.s_layers", 0), ("BU.s_layers is 0", "1 or more")),
        (("Bu.hid_dim", 256), ("Bu.hid_dim is 256", "Bi.hid_dim 512", "equal")),
        (("BU.a_dim", 256), ("BU.a_dim is 256", "Bi.a_dim 512")),
        (("Bi.a_dim", 1024), ("Bi.a_dim is 1024", "Bi.hid_dim 512")),
        (("TM.use", True, "TM.p", 1.5), ("TM.p", "0 to 1")),
        (("TM.use", True, "TM.t", 0), ("TM.t is 0",)),
    ],
)
def test_what_contradicts_itself_is_named(pairs: tuple[Any, ...], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        settings_of(config(*pairs), 9)
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_kinds_of_another_network() -> None:
    settings = settings_of(config("FACT.block", "IUU"), 9, kinds="IU")
    assert [block.kind for block in settings.blocks] == ["I", "U", "U"]
    with pytest.raises(ConfigError, match="'u' is none of the blocks I"):
        settings_of(config("FACT.block", "IuU"), 9, kinds="IU")
