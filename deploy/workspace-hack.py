#!/usr/bin/env python3
"""Writes workspace-hack/Cargo.toml: the features of external crates that differ between a build of one crate and of the workspace."""

import collections
import json
import pathlib
import re
import subprocess
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "workspace-hack" / "Cargo.toml"
# Left out: the crate itself, and the peers of the benchmarks, which are another workspace.
CRATES = [path for path in tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["members"] if path != "workspace-hack"]


def features(arguments):
    command = ["cargo", "tree", "-e", "normal,dev,no-proc-macro", "--prefix", "none", "-f", "{p}|{f}", *arguments]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = {}
    for line in out.splitlines():
        package, _, enabled = line.replace(" (*)", "").partition("|")
        match = re.match(r"(\S+) v(\S+)", package)
        if match and "(/" not in package:
            found[(match[1], match[2])] = enabled
    return found


def differing():
    """The packages that a build of one crate and its tests would make with fewer features than one of the workspace, with all of them."""
    whole = features(["--workspace"])
    found = {}
    for crate in CRATES:
        for package, enabled in features(["-p", f"flowstone-{crate}"]).items():
            if whole.get(package) != enabled:
                found[package] = whole[package]
    return found


def write(header, packages):
    names = collections.Counter(name for name, _ in packages)
    lines = []
    for (name, version), enabled in sorted(packages.items()):
        alias = name if names[name] == 1 else f"{name}-{version.replace('.', '_').replace('+', '_')}"
        package = "" if alias == name else f'package = "{name}", '
        wanted = json.dumps([feature for feature in enabled.split(",") if feature])
        lines.append(f'{alias} = {{ {package}version = "{version.split("+")[0]}", default-features = false, features = {wanted} }}')
    MANIFEST.write_text(header + "[dependencies]\n" + "\n".join(lines) + "\n", encoding="utf-8")


def main():
    header = MANIFEST.read_text(encoding="utf-8").split("[dependencies]")[0]
    packages = {}
    write(header, packages)
    # What is unified turns on features of other packages: again, until nothing differs.
    while more := differing():
        if more.items() <= packages.items():
            raise SystemExit(f"still differing: {more}")
        packages.update(more)
        write(header, packages)


if __name__ == "__main__":
    main()
