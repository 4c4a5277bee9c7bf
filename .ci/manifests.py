"""Checks what a release says about itself. `.ci/release` passes it the metadata of cargo.

    cargo metadata --no-deps --format-version 1 | python3 .ci/manifests.py [VERSION]
"""

import json
import re
import sys
from pathlib import Path

released = sys.argv[1] if len(sys.argv) > 1 else None
packages = [p for p in json.load(sys.stdin)["packages"] if p["publish"] != []]
problems = []

versions = {p["version"] for p in packages}
if len(versions) > 1:
    problems.append(f"the crates have several versions: {versions}; use `version.workspace = true`")
version = released or packages[0]["version"]
if versions != {version}:
    problems.append(f"the crates have version {versions}, not {version}; run `.ci/set-version {version}`")
npm = json.loads(Path("wasm/npm/package.json").read_text())
locked = json.loads(Path("wasm/package-lock.json").read_text())["packages"]["npm"]
for name, found in ("wasm/npm/package.json", npm["version"]), ("wasm/package-lock.json", locked["version"]):
    if found != version:
        problems.append(f"{name} has version {found}, not {version}; run `.ci/set-version {version}`")

names = {p["name"] for p in packages}
requirements = {}
for package in packages:
    name = package["name"]
    for field in "description", "license", "repository", "readme", "keywords", "categories":
        if not package[field]:
            problems.append(f"{name} has no {field}")
    if len(package["keywords"]) > 5 or len(package["categories"]) > 5:
        problems.append(f"{name} has more than 5 keywords or categories, which crates.io refuses")
    if any("lib" in target["kind"] for target in package["targets"]):
        docs = ((package["metadata"] or {}).get("docs") or {}).get("rs") or {}
        if docs != {"all-features": True, "rustdoc-args": ["--cfg", "docsrs"]}:
            problems.append(f"{name} has no [package.metadata.docs.rs] with all features and `--cfg docsrs`")
        if package["documentation"] != f"https://docs.rs/{name}":
            problems.append(f"{name} has no link to docs.rs in `documentation`")
    for dependency in package["dependencies"]:
        # Cargo leaves out those of tests that have no version.
        if dependency["kind"] == "dev" and dependency["req"] == "*":
            continue
        if dependency.get("path"):
            if dependency["name"] not in names:
                problems.append(f"{name} depends on {dependency['name']}, which is not published")
            if dependency["req"] != f"^{version}":
                problems.append(f"{name} depends on {dependency['name']} {dependency['req']}, not ^{version}")
        elif dependency["kind"] != "dev":
            requirements.setdefault(dependency["name"], {}).setdefault(dependency["req"], []).append(name)

# `.ci/minimal-versions` resolves all crates at once, so the lowest of several would not be tested.
for dependency, required in sorted(requirements.items()):
    if len(required) > 1:
        problems.append(f"the crates require several versions of {dependency}: {required}; choose one")

table = Path("ARCHITECTURE.md").read_text().split("\n## Dependencies\n")[1].split("\n## ")[0]
rows = set(re.findall(r"`([a-z0-9_-]+)`", " ".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
for dependency in sorted(requirements.keys() - rows):
    problems.append(f"{dependency} has no row in the table of dependencies in ARCHITECTURE.md")

sections = {}
for section in re.split(r"^## ", Path("CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]:
    title, _, text = section.partition("\n")
    sections[title.split()[0]] = text.strip()
if released:
    if not sections.get(released):
        problems.append(f"CHANGELOG.md has no section `## {released}`")
    if "Unreleased" in sections:
        problems.append(f"CHANGELOG.md still has a section `## Unreleased`; rename it to `## {released}`")
elif not sections.get("Unreleased") and not sections.get(version):
    problems.append(f"CHANGELOG.md has neither `## Unreleased` with text nor `## {version}`")

named = "Cargo.toml", "wasm/npm/package.json", "deploy/package/nfpm.yaml", "deploy/package/copyright"
placeholders = [f for f in named if "example.com" in Path(f).read_text()]
if placeholders:
    text = f"the address of the repository or its maintainers is a placeholder in {', '.join(placeholders)}"
    if released:
        problems.append(text)
    else:
        print(f"note: {text}; the first release needs the real one")

for problem in problems:
    print(problem, file=sys.stderr)
print(f"{len(packages)} crates at {version}: {', '.join(sorted(names))}")
sys.exit(bool(problems))
