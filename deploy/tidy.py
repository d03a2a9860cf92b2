#!/usr/bin/env python3
"""Checks what the compiler and clippy cannot. Read-only; prints one line per finding and exits 1 if there is any."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Which workspace crates each crate may link, besides the workspace hack. Tests and benches may link what they test.
ALLOWED = {
    "types": set(),
    "proto": {"types"},
    "functions": {"types", "proto"},
    "dataflow": {"types", "proto"},
    "sql": {"types", "proto", "functions"},
    "disk": set(),
    "storage": {"types", "disk"},
    "ingest": {"types", "proto", "disk", "storage"},
    "coordinator": {"types", "proto", "disk", "functions", "sql", "storage"},
    "worker": {"types", "proto", "functions", "dataflow", "storage", "ingest"},
    "tls": set(),
    "pgwire": {"types", "proto", "sql", "coordinator", "tls"},
    "flight": {"types", "proto", "sql", "coordinator", "tls"},
    "console": {"types", "proto", "sql", "coordinator", "tls"},
    "fuzz": set(),
    "node": {"types", "proto", "disk", "coordinator", "worker", "tls", "pgwire", "flight", "console", "storage", "ingest"},
}


def tracked(pattern):
    out = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", pattern], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in out.stdout.splitlines() if (ROOT / line).is_file()]


def module_docs():
    for path in tracked("*.rs"):
        first = path.read_text(encoding="utf-8").lstrip()
        # Parts of a test binary are documented by their parent.
        if not first.startswith("//!") and path.name != "tests.rs":
            yield f"{path.relative_to(ROOT)}: does not open with a module doc"


def dependency_direction():
    for crate, allowed in ALLOWED.items():
        text = (ROOT / crate / "Cargo.toml").read_text(encoding="utf-8")
        linked = text.split("[dependencies]", 1)[1].split("\n[", 1)[0]
        for name in re.findall(r"^flowstone-([a-z-]+)", linked, re.M):
            if name != "workspace-hack" and name not in allowed:
                yield f"{crate}/Cargo.toml: may not depend on flowstone-{name}"


def versions_in_one_place():
    for path in tracked("*/Cargo.toml"):
        if path.parent.name == "workspace-hack" or "peers" in path.parts:
            continue
        text = path.read_text(encoding="utf-8")
        for section in re.findall(r"^\[(?:dev-|build-)?dependencies\]\n(.*?)(?=^\[|\Z)", text, re.M | re.S):
            for line in section.splitlines():
                if re.search(r'"\d', line):
                    yield f"{path.relative_to(ROOT)}: version outside of the workspace manifest: {line.strip()}"


def no_sleeps_in_tests():
    for path in tracked("*.rs"):
        relative = path.relative_to(ROOT)
        if "tests" in relative.parts or path.name == "tests.rs":
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
                # A poll interval inside a helper that waits on a condition says so.
                if re.search(r"(?<!fn )\bsleep\(", line) and "poll interval" not in line:
                    yield f"{relative}:{number}: a test sleeps; wait on a condition with a deadline"


def failpoints_at_durable_writes():
    """Whatever makes a write durable has a failpoint right before it, or says why not."""
    for path in tracked("*/src/**/*.rs") + tracked("*/src/*.rs"):
        relative = path.relative_to(ROOT)
        if relative.parts[0] in {"tests", "benches", "fuzz"} or "tests" in relative.parts or path.name == "tests.rs":
            continue
        lines = path.read_text(encoding="utf-8").split("#[cfg(test)]\nmod tests", 1)[0].splitlines()
        for number, line in enumerate(lines, 1):
            if re.search(r"\.sync_(all|data)\(|fs::(rename|hard_link)\(|sync_(directory|parent)\(", line) and "fn " not in line:
                before = "\n".join(lines[max(0, number - 5) : number])
                if "reached(" not in before and "failpoint" not in before:
                    yield f"{relative}:{number}: a durable write without a failpoint (disk/src/failpoint.rs)"


def no_machine_paths():
    for path in tracked("*"):
        if path.suffix in {".rs", ".md", ".toml", ".sh", ".py", ".yml", ".sql", ".slt"} and path.name != "tidy.py":
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if re.search(r"/root/|/home/[a-z]|/work/|index\.crates\.io", line):
                    yield f"{path.relative_to(ROOT)}:{number}: a path or host of one machine"


def main():
    findings = [
        finding
        for check in (module_docs, dependency_direction, versions_in_one_place, no_sleeps_in_tests, failpoints_at_durable_writes, no_machine_paths)
        for finding in check()
    ]
    for finding in findings:
        print(finding)
    large = sorted(((len(path.read_text(encoding="utf-8").splitlines()), path) for path in tracked("*.rs")), reverse=True)[:3]
    print("largest files:", ", ".join(f"{path.relative_to(ROOT)} {lines}" for lines, path in large))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
