from __future__ import annotations

from typing import Any

import pytest

from vidseg import registry as registry_module
from vidseg.errors import UserError
from vidseg.registry import Registry, set_miss_hook


@pytest.fixture(autouse=True)
def _without_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_hooks", [])
    return


def _class(name: str, module: str = "somewhere") -> type:
    return type(name, (), {"__module__": module, "__qualname__": name})


def test_registers_by_decorator_call_and_alias() -> None:
    things: Registry[type] = Registry("THING")

    @things.register()
    class Apple:
        pass

    assert things.register(Apple, name="Malus") is Apple
    assert things.get("Apple") is things.get("Malus") is Apple
    assert "Apple" in things
    assert "Pear" not in things
    assert things.names() == ["Apple", "Malus"]
    assert dict(things) == {"Apple": Apple, "Malus": Apple}
    assert len(things) == 2


def test_same_object_again_replaces_and_another_is_refused() -> None:
    things: Registry[type] = Registry("THING")
    things.register(_class("Apple"))
    reloaded = _class("Apple")
    things.register(reloaded)
    assert things.get("Apple") is reloaded
    with pytest.raises(ValueError, match=r"'Apple' is registered twice: somewhere.Apple.*other"):
        things.register(_class("Apple", "other"))


def test_miss_names_the_nearest_with_its_project() -> None:
    things: Registry[type] = Registry("META_ARCH")
    things.register(_class("OnlineVIS", "vidseg.projects.dvis_daq.online"))
    things.register(_class("MaskFormer"))
    with pytest.raises(UserError) as error:
        things.get("OnlinVIS")
    assert str(error.value) == (
        "META_ARCH 'OnlinVIS' is not registered; nearest: OnlineVIS (project dvis_daq). "
        "Known: MaskFormer, OnlineVIS"
    )
    assert things.provider("MaskFormer") == ""


def test_hook_may_bring_the_component_or_a_remark() -> None:
    things: Registry[type] = Registry("THING")

    def hook(asked: Registry[Any], name: str) -> list[str]:
        if name == "Late":
            asked.register(_class("Late"))
        return ["plugin 'x' failed to import: boom"]

    set_miss_hook(hook)
    assert things.get("Late").__name__ == "Late"
    with pytest.raises(UserError, match="Known: Late; plugin 'x' failed to import: boom"):
        things.get("Never")


def test_miss_without_a_near_name() -> None:
    things: Registry[type] = Registry("THING")
    things.register(_class("Apple"))
    with pytest.raises(UserError, match=r"^THING 'Zzz' is not registered. Known: Apple$"):
        things.get("Zzz")
