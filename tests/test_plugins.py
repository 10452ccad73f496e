"""Plugins made on the spot: found, imported late, and unable to hurt each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import vidseg.projects
from vidseg import plugins
from vidseg.config import load_config
from vidseg.errors import ConfigError, UserError
from vidseg.registry import Registry

PLUGIN = """
from vidseg.config import CfgNode
COMPONENTS = ("part",)

def add_config(cfg):
    cfg.MODEL.{key} = CfgNode()
    cfg.MODEL.{key}.SIZE = 3
"""
PART = """
from vidseg import testing_registry

@testing_registry.register()
class {name}:
    pass
"""

pytestmark = pytest.mark.usefixtures("fresh_plugins")


def make_plugin(root: Path, name: str, *, key: str = "TOY", component: str = "Toy") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(PLUGIN.format(key=key))
    (folder / "part.py").write_text(PART.format(name=component))
    (folder / "base.yaml").write_text(f"MODEL: {{{key}: {{SIZE: 5}}}}\n")
    return folder


def install(root: Path, distribution: str, entry: str) -> None:
    """Writes what pip leaves of a distribution with an entry point."""
    info = root / f"{distribution}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[vidseg.projects]\n{entry}\n")


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry[type]:
    things: Registry[type] = Registry("THING")
    monkeypatch.setattr(vidseg, "testing_registry", things, raising=False)
    return things


@pytest.fixture(autouse=True)
def _forget_modules() -> object:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("vidseg.projects.toy", "toy_")):
            del sys.modules[name]


@pytest.fixture
def project_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A second folder of projects beside those of the checkout."""
    monkeypatch.setattr(vidseg.projects, "__path__", [*vidseg.projects.__path__, str(tmp_path)])
    return tmp_path


def test_discovery_imports_nothing(project_root: Path) -> None:
    folder = make_plugin(project_root, "toy_found")
    spec = plugins.discover()["toy_found"]
    assert (spec.module, spec.folder) == ("vidseg.projects.toy_found", folder)
    assert "vidseg.projects.toy_found" not in sys.modules


def test_config_in_the_plugins_folder_finds_it(project_root: Path) -> None:
    folder = make_plugin(project_root, "toy_owner")
    assert plugins.plugin_for_config(folder / "base.yaml") == "toy_owner"
    assert plugins.plugin_for_config(project_root / "else.yaml") is None
    assert load_config(folder / "base.yaml").MODEL.TOY.SIZE == 5
    assert "vidseg.projects.toy_owner.part" not in sys.modules


TRANSLATING = """
from dataclasses import replace
from vidseg.config.published import WithoutEffect

TRANSLATED_KEYS = ("steps",)
WITHOUT_EFFECT = {"log.colour": WithoutEffect("red", "nothing is coloured")}

def add_config(cfg):
    cfg.MODEL.STRANGE_WIDTH = 1

def translate(items):
    return [
        replace(item, key="SOLVER.MAX_ITER", value=10 * int(item.value))
        if item.key == "steps" else item
        for item in items
    ]
"""


def test_plugin_translates_published_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = tmp_path / "strange_plugin.py"
    plugin.write_text(TRANSLATING)
    monkeypatch.setenv("VIDSEG_PLUGINS", str(plugin))
    cfg = load_config(None, ["SOLVER.MAX_ITER", "1", "steps", "5", "log.colour", "blue"])
    assert (cfg.SOLVER.MAX_ITER, cfg.MODEL.STRANGE_WIDTH) == (50, 1)
    assert "config keys without effect: log.colour (nothing is coloured)" in caplog.text
    assert load_config(None, ["steps", "5", "SOLVER.MAX_ITER", "1"]).SOLVER.MAX_ITER == 1
    with pytest.raises(ConfigError, match=r"unknown key step .*; did you mean steps\?"):
        load_config(None, ["step", "5"])
    assert not load_config(None, ["SOLVER.MAX_ITER", "1"]).MODEL.get("STRANGE_WIDTH")


def test_keys_of_another_plugin_are_found_on_a_miss(project_root: Path, tmp_path: Path) -> None:
    make_plugin(project_root, "toy_keys", key="FAR")
    file = tmp_path / "elsewhere.yaml"
    file.write_text("MODEL: {FAR: {SIZE: 1e1}}\n")
    assert load_config(file).MODEL.FAR.SIZE == 10
    assert load_config(None, ["MODEL.FAR.SIZE", "4"]).MODEL.FAR.SIZE == 4
    assert not load_config().has("MODEL.FAR")
    with pytest.raises(ConfigError, match="did you mean SIZE"):
        load_config(None, ["MODEL.FAR.SIZ", "4"])


def test_components_are_imported_on_a_registry_miss(
    project_root: Path, registry: Registry[type]
) -> None:
    make_plugin(project_root, "toy_parts", component="Wheel")
    assert registry.get("Wheel").__module__ == "vidseg.projects.toy_parts.part"
    assert registry.provider("Wheel") == "toy_parts"


def test_named_by_path_it_has_one_name(tmp_path: Path, registry: Registry[type]) -> None:
    folder = make_plugin(tmp_path, "toy_path", component="Axle")
    module = plugins.load(str(folder))
    assert module is sys.modules["vidseg.projects.toy_path"]
    assert plugins.load("toy_path") is plugins.load(str(folder)) is module
    assert registry.get("Axle").__module__ == "vidseg.projects.toy_path.part"
    assert load_config(None, ["MODEL.TOY.SIZE", 7], [str(folder)]).MODEL.TOY.SIZE == 7


def test_single_file_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "toy_single.py"
    file.write_text(PLUGIN.format(key="LONE").replace('"part",', ""))
    monkeypatch.setenv("VIDSEG_PLUGINS", str(file))
    assert "toy_single" in plugins.discover()
    assert load_config(None, ["MODEL.LONE.SIZE", "2"]).MODEL.LONE.SIZE == 2


def test_entry_points_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_plugin(tmp_path, "toy_installed_package", key="SHIPPED")
    install(tmp_path, "toy", "toy_ep = toy_installed_package")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = plugins.discover()["toy_ep"]
    assert (spec.source, spec.folder) == ("entry point", tmp_path / "toy_installed_package")
    assert load_config(None, ["MODEL.SHIPPED.SIZE", "2"]).MODEL.SHIPPED.SIZE == 2


def test_failing_plugin_is_reported_and_others_survive(
    project_root: Path, registry: Registry[type], caplog: pytest.LogCaptureFixture
) -> None:
    broken = make_plugin(project_root, "toy_a_broken")
    (broken / "__init__.py").write_text("import open_clip_that_is_not_there\n")
    clip = make_plugin(project_root, "toy_b_clip")
    (clip / "part.py").write_text("raise ModuleNotFoundError('No open_clip', name='open_clip')\n")
    make_plugin(project_root, "toy_c_good", key="GOOD", component="Good")
    assert registry.get("Good").__name__ == "Good"
    assert load_config(None, ["MODEL.GOOD.SIZE", "2"]).MODEL.GOOD.SIZE == 2
    with pytest.raises(UserError, match="plugin 'toy_a_broken' failed to import: No module named"):
        plugins.load("toy_a_broken")
    with pytest.raises(UserError, match=r"'Goood'.*nearest: Good \(project toy_c_good\).*a_broken"):
        registry.get("Goood")
    assert "install vidseg[clip]" in caplog.text
    assert plugins.load_components(["toy_c_good"]) == []


def test_failing_add_config_is_reported_by_name(project_root: Path) -> None:
    folder = make_plugin(project_root, "toy_add")
    (folder / "__init__.py").write_text("def add_config(cfg):\n    cfg.NO.SUCH = 1\n")
    with pytest.raises(UserError, match="plugin 'toy_add' failed in add_config"):
        load_config(None, [], ["toy_add"])
    assert load_config(None, ["SEED", "3"]).SEED == 3


@pytest.mark.parametrize("word", ["dvis_dag", "/no/such/folder", "no.such.module"])
def test_unknown_plugin_is_one_sentence(word: str) -> None:
    with pytest.raises(UserError, match=f"'{word}' is no plugin, path or importable module"):
        plugins.load(word)


def test_the_folder_around_a_package_is_told_from_it(tmp_path: Path) -> None:
    make_plugin(tmp_path / "checkout", "toy_inner")
    with pytest.raises(UserError, match=r"no __init__\.py; name the one in it, .*toy_inner$"):
        plugins.load(str(tmp_path / "checkout"))


def test_two_folders_of_one_name_are_refused(project_root: Path, tmp_path: Path) -> None:
    make_plugin(project_root, "toy_twin")
    other = make_plugin(tmp_path / "other", "toy_twin")
    with pytest.raises(UserError, match="has the name of another plugin"):
        plugins.load(str(other))


def test_projects_of_the_checkout_are_light() -> None:
    """Neither discovery nor the config keys of any project import torch."""
    code = (
        "import sys; from vidseg import plugins\n"
        "for name in plugins.discover(): plugins.declare(name)\n"
        "assert 'dvis_daq' in plugins.discover()\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_public_names_come_with_their_first_use() -> None:
    program = """
import sys
from vidseg.projects import persistence, rqvae
assert "torch" not in sys.modules
for project in (persistence, rqvae):
    public = sorted(set(dir(project)) & set(project._MODULES))
    assert public == sorted(project._MODULES)
    assert all(callable(getattr(project, name)) for name in public)
    assert not hasattr(project, "Nothing")
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_broken_installed_plugin_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry[type]
) -> None:
    """Not even a package that cannot be imported around the plugin does harm."""
    outer = make_plugin(tmp_path, "toy_outer")
    (outer / "__init__.py").write_text("raise RuntimeError('a mistake')\n")
    inner = make_plugin(outer, "inner")
    install(tmp_path, "bad", "toy_bad = toy_outer.inner")
    install(tmp_path, "gone", "toy_gone = toy_package_that_was_removed")
    make_plugin(tmp_path, "toy_fine_package", key="FINE", component="Fine")
    install(tmp_path, "fine", "toy_fine = toy_fine_package")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins.discover()["toy_bad"].folder == inner
    assert plugins.discover()["toy_gone"].folder is None
    assert load_config(None, ["MODEL.FINE.SIZE", "2"]).MODEL.FINE.SIZE == 2
    assert registry.get("Fine").__module__ == "toy_fine_package.part"
    with pytest.raises(UserError, match="plugin 'toy_bad' failed to import: RuntimeError: a mist"):
        plugins.load("toy_bad")
    with pytest.raises(UserError) as caught:
        registry.get("Finer")
    assert "plugin 'toy_bad' failed" in str(caught.value)
    assert "plugin 'toy_gone' failed" in str(caught.value)


def test_two_plugins_of_one_name_are_both_named(
    project_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry[type]
) -> None:
    here = make_plugin(project_root, "toy_name", key="HERE", component="Here")
    there = make_plugin(tmp_path / "site", "toy_there_package", component="There")
    install(tmp_path / "site", "there", "toy_name = toy_there_package")
    make_plugin(project_root, "toy_other", key="OTHER", component="Other")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    with pytest.raises(UserError, match="several plugins are called 'toy_name'") as caught:
        load_config(here / "base.yaml")
    assert f"vidseg.projects.toy_name in {here}" in str(caught.value)
    assert f"toy_there_package in {there}" in str(caught.value)
    assert load_config(None, ["MODEL.OTHER.SIZE", "2"]).MODEL.OTHER.SIZE == 2
    assert registry.get("Other").__name__ == "Other"


def test_one_distribution_found_twice_is_no_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_plugin(tmp_path, "toy_again_package", key="AGAIN")
    install(tmp_path, "again", "toy_again = toy_again_package")
    install(tmp_path, "renamed", "toy_again = toy_again_package")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert plugins.discover()["toy_again"].rivals == ()
    assert load_config(None, ["MODEL.AGAIN.SIZE", "2"]).MODEL.AGAIN.SIZE == 2


def test_two_components_of_one_name_are_both_named(
    project_root: Path, registry: Registry[type]
) -> None:
    make_plugin(project_root, "toy_first", component="Same")
    make_plugin(project_root, "toy_second", component="Same")
    assert registry.get("Same").__module__ == "vidseg.projects.toy_first.part"
    (failure,) = plugins.load_components(["toy_second"])
    assert "plugin 'toy_second' failed to import" in failure
    assert "THING 'Same' is registered twice" in failure
    for name in ("toy_first", "toy_second"):
        assert f"vidseg.projects.{name}.part.Same ({project_root / name / 'part.py'}:4)" in failure


def test_shipped_config_of_an_installed_plugin_is_found_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_plugin(tmp_path, "toy_ship_package", key="SHIP")
    (tmp_path / "toy_ship_package" / "base.yaml").write_text("MODEL: {SHIP: {SIZE: 6}}\n")
    install(tmp_path, "ship", "toy_ship = toy_ship_package")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_config("projects/toy_ship/base.yaml").MODEL.SHIP.SIZE == 6
    with pytest.raises(ConfigError, match=r"projects/toy_ship/other\.yaml"):
        load_config("projects/toy_ship/other.yaml")
    with pytest.raises(ConfigError, match=r"no project 'toy_shop' is in .*; there are toy_ship"):
        load_config("projects/toy_shop/base.yaml")
