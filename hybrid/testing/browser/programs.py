"""What the browser rig needs besides this package: programs and Python packages, found, or told by name."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

from hybrid.errors import HybridError

EXTRA = "browser"

CHROMIUM = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
# program, or several of which one will do: Debian package
PROGRAMS = {
    CHROMIUM: "chromium",
    ("Xvfb",): "xvfb",
    ("openbox",): "openbox",
    ("xdotool",): "xdotool",
    ("certutil",): "libnss3-tools",
    ("dbus-daemon",): "dbus-daemon",
}
FONT = "/usr/share/fonts"
FONT_PACKAGE = "fonts-dejavu-core"
MODULES = ("PIL", "zxingcpp")


class MissingParts(HybridError):
    """Something that the browser rig needs is not installed. `packages`: of Debian; `extra`: of ours, if any."""

    def __init__(self, packages: tuple[str, ...], extra: str | None) -> None:
        self.packages = packages
        self.extra = extra
        commands = []
        if packages:
            commands.append(f"apt-get install --no-install-recommends {' '.join(packages)}")
        if extra:
            commands.append(f'pip install "fido-hybrid[{extra}]"')
        named = [f"the Debian package {package}" for package in packages]
        named += [f"the extra {extra}"] if extra else []
        super().__init__(f"the browser rig needs {', '.join(named)}: {' && '.join(commands)}")

    @property
    def identifier(self) -> str:
        return "browser.missing"


def find_programs() -> dict[str, str]:
    """Path of each program by its Debian package. Raises `MissingParts` that names everything at once."""
    search = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/bin", "/usr/local/bin"))
    found: dict[str, str] = {}
    for names, package in PROGRAMS.items():
        path = next(filter(None, (shutil.which(name, path=search) for name in names)), None)
        if path is not None:
            found[package] = path
    missing = [package for package in PROGRAMS.values() if package not in found]
    if not os.path.isdir(FONT) or not any(files for _, _, files in os.walk(FONT)):
        missing.append(FONT_PACKAGE)
    extra = None if all(find_spec(module) for module in MODULES) else EXTRA
    if missing or extra:
        raise MissingParts(tuple(missing), extra)
    return found
