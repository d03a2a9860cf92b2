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
    "sql": {"types", "proto", "functions", "formats"},
    "disk": set(),
    "formats": {"types"},
    "storage": {"types", "disk"},
    "ingest": {"types", "proto", "disk", "formats", "storage"},
    "coordinator": {"types", "proto", "disk", "functions", "sql", "storage"},
    "worker": {"types", "proto", "disk", "functions", "dataflow", "storage", "ingest"},
    "tls": set(),
    "pgwire": {"types", "proto", "sql", "coordinator", "tls"},
    "flight": {"types", "proto", "sql", "coordinator", "tls"},
    "console": {"types", "proto", "sql", "coordinator", "tls"},
    "fuzz": set(),
    "node": {"types", "proto", "disk", "coordinator", "worker", "tls", "pgwire", "flight", "console", "storage", "ingest"},
}


# Modules of a crate that refer to each other in circles. To be taken apart; nothing is added.
CIRCLES = {
    "dataflow": [{"relation", "snapshot"}, {"render", "shard"}],
    "flight": [{"prepared", "sessions"}, {"auth", "service"}],
    "functions": [
        {"aggregate", "cast", "errors", "execution", "growth", "guarded", "interval", "json", "keys", "numeric", "operators", "pieces", "registry", "udf", "zone"},
    ],
    "pgwire": [{"connection", "frontend", "io", "server", "startup"}],
    "sql": [{"catalog", "system"}],
    "storage": [{"staging", "tables"}],
    "tests": [{"disk", "node", "postgres"}],
}


# The kinds of sources by their names in code, and the only places in the crates that a source passes through where they are told apart.
KINDS = re.compile(r"\b(?:Postgres|Kafka)(?:Connection|Source)?\b|\bLoadGenerator\b")
KINDS_PASS = ("sql", "proto", "coordinator", "worker")
KINDS_IN = ("sql/src/connector.rs", "sql/src/connector/", "proto/src/message.rs", "proto/src/kafka.rs")


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


def references(crate):
    """Which modules at the top of a crate each of them refers to, tests aside."""
    src = ROOT / crate / "src"
    modules = {path.stem for path in src.glob("*.rs")} - {"lib", "main"}
    found = {module: set() for module in modules}
    for path in tracked(f"{crate}/src/*.rs") + tracked(f"{crate}/src/**/*.rs"):
        parts = path.relative_to(src).parts
        module = parts[0].removesuffix(".rs")
        if module not in modules or "tests" in parts or path.stem == "tests":
            continue
        text = path.read_text(encoding="utf-8").split("#[cfg(test)]\nmod tests {")[0]
        text = re.sub(r"//.*", "", text)
        names = re.findall(r"\bcrate::(\w+)", text)
        names += [name for group in re.findall(r"\bcrate::\{([^;]*)\}", text) for name in re.findall(r"\w+", group)]
        names += re.findall(r"(?<!super::)" + "super::" * len(parts) + r"(\w+)", text)
        found[module] |= (set(names) & modules) - {module}
    return found


def circles(graph):
    """Groups of modules each of which reaches every other (Tarjan's algorithm)."""
    order, low, stack, found = {}, {}, [], []

    def visit(module):
        order[module] = low[module] = len(order)
        stack.append(module)
        for other in sorted(graph[module]):
            if other not in order:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], order[other])
        if low[module] == order[module]:
            at = stack.index(module)
            group = set(stack[at:])
            del stack[at:]
            if len(group) > 1:
                found.append(group)

    for module in sorted(graph):
        if module not in order:
            visit(module)
    return found


def modules_in_circles():
    for manifest in tracked("*/Cargo.toml"):
        crate = manifest.parent.name
        if not (manifest.parent / "src").is_dir():
            continue
        known = CIRCLES.get(crate, [])
        found = circles(references(crate))
        for group in found:
            if not any(group <= allowed for allowed in known):
                yield f"{crate}/src: modules refer to each other in a circle: {', '.join(sorted(group))}"
        for allowed in known:
            if not any(allowed == group for group in found):
                yield f"deploy/tidy.py: {', '.join(sorted(allowed))} of {crate} are less of a circle now: shorten the list"


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


def kinds_of_sources_in_their_places():
    """What a kind of source needs stands in its connector (ARCHITECTURE.md, "Adding a connector"); `ingest` is the third place."""
    for crate in KINDS_PASS:
        for path in tracked(f"{crate}/src/*.rs") + tracked(f"{crate}/src/**/*.rs"):
            relative = path.relative_to(ROOT)
            if str(relative).startswith(KINDS_IN) or "tests" in relative.parts or path.name == "tests.rs":
                continue
            text = path.read_text(encoding="utf-8").split("#[cfg(test)]\nmod tests {", 1)[0]
            for number, line in enumerate(text.splitlines(), 1):
                if KINDS.search(re.sub(r"//.*", "", line)):
                    yield f"{relative}:{number}: a kind of source outside of its connector: {line.strip()}"


def no_machine_paths():
    for path in tracked("*"):
        if path.suffix in {".rs", ".md", ".toml", ".sh", ".py", ".yml", ".sql", ".slt"} and path.name != "tidy.py":
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if re.search(r"/root/|/home/[a-z]|/work/|index\.crates\.io", line):
                    yield f"{path.relative_to(ROOT)}:{number}: a path or host of one machine"


def main():
    findings = [
        finding
        for check in (module_docs, dependency_direction, modules_in_circles, versions_in_one_place, no_sleeps_in_tests, failpoints_at_durable_writes, kinds_of_sources_in_their_places, no_machine_paths)
        for finding in check()
    ]
    for finding in findings:
        print(finding)
    large = sorted(((len(path.read_text(encoding="utf-8").splitlines()), path) for path in tracked("*.rs")), reverse=True)[:3]
    print("largest files:", ", ".join(f"{path.relative_to(ROOT)} {lines}" for lines, path in large))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
