#!/usr/bin/env python3
"""Writes workspace-hack/Cargo.toml: the features of external crates that differ between a build of one crate and of the workspace."""

import collections
import json
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
MANIFEST = ROOT / "workspace-hack" / "Cargo.toml"
CRATES = ["types", "proto", "functions", "dataflow", "sql", "storage", "ingest", "coordinator", "worker", "pgwire", "flight", "console", "node"]


def features(arguments):
    command = ["cargo", "tree", "-e", "normal,no-proc-macro", "--prefix", "none", "-f", "{p}|{f}", *arguments]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = {}
    for line in out.splitlines():
        package, _, enabled = line.replace(" (*)", "").partition("|")
        match = re.match(r"(\S+) v(\S+)", package)
        if match and "(/" not in package:
            found[(match[1], match[2])] = enabled
    return found


def main():
    header = MANIFEST.read_text(encoding="utf-8").split("[dependencies]")[0]
    MANIFEST.write_text(header + "[dependencies]\n", encoding="utf-8")
    whole = features(["--workspace"])
    differing = {}
    for crate in CRATES:
        for package, enabled in features(["-p", f"flowstone-{crate}"]).items():
            if whole.get(package) != enabled:
                differing[package] = whole[package]
    names = collections.Counter(name for name, _ in differing)
    lines = []
    for (name, version), enabled in sorted(differing.items()):
        alias = name if names[name] == 1 else f"{name}-{version.replace('.', '_').replace('+', '_')}"
        package = "" if alias == name else f'package = "{name}", '
        wanted = json.dumps([feature for feature in enabled.split(",") if feature])
        lines.append(f'{alias} = {{ {package}version = "{version.split("+")[0]}", default-features = false, features = {wanted} }}')
    MANIFEST.write_text(header + "[dependencies]\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
