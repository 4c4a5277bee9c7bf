"""Prints COMPARISON.md: what each library answers to each case.

Arguments: the folder of the vectors, the date, then LANGUAGE=VERSIONS=FILE... with files of answers; each
language can have several files, for several times.
"""

import json
import sys

FILES = ["verify", "headers", "secrets"]
INTRODUCTION = """# What the public libraries answer

Each case of the [conformance vectors](README.md), and what the public Standard Webhooks and Svix libraries
answer to it. `vectors/compare` makes this page; `.ci/vectors` checks that it is current.

How to read it:

- A difference is in bold. It isn't a fault by itself: where the specification is silent, this project is
  strict and a library may be lenient. The rules of this project that go beyond the specification are
  marked *beyond*. In the cases that a library accepts and this project rejects, the message is signed with the
  right key: they show how the library reads unusual values.
- A library takes one secret. It accepts a case with several if one of them verifies the delivery.
- These libraries take the body as text, so they reject one that isn't UTF-8. The specification recommends JSON,
  which is UTF-8, and allows other types.
- `rejects (TypeError)` is a rejection by another error than the library's own, which a caller may not expect.
- `–`: the case cannot be put to the library. Its tolerance is fixed at 300 seconds, its headers are an object
  or dictionary without duplicates, or the value isn't valid in HTTP.
"""


def load(folder, name):
    with open(f"{folder}/{name}.json", encoding="utf-8") as file:
        return json.load(file)


folder, date, *arguments = sys.argv[1:]
columns = {}
versions = {}
for argument in arguments:
    language, version, path = argument.split("=")
    with open(path, encoding="utf-8") as file:
        for (peer, answers), number in zip(json.load(file).items(), version.split(",")):
            columns.setdefault((language, peer), {}).update(answers)
            versions[language, peer] = number

titles = [f"{peer} ({language})" for language, peer in columns]
vectors = {name: load(folder, name) for name in FILES}


def differs(answer, expected):
    return not answer.startswith(expected)


def cell(answer, expected):
    if answer is None:
        return "–"
    return f"**{answer}**" if differs(answer, expected) else answer


def expected_of(case):
    return "accepts" if case["expect"] == "ok" else "rejects"


def rows():
    """Yields file, rule and case of each row."""
    for name, vector in vectors.items():
        for case in vector["cases"]:
            yield name, case["rule"], case


def line(*cells):
    print("|", " | ".join(cells), "|")


def print_summary():
    """Prints how many answers to the cases of each rule differ."""
    print("## Differences by rule\n")
    line("rule", "cases", *titles)
    line(*["---"] * (len(titles) + 2))
    for name, vector in vectors.items():
        for rule, about in vector["rules"].items():
            cases = [case for file, of, case in rows() if (file, of) == (name, rule)]
            cells = []
            for answers in columns.values():
                asked = [
                    (answers[f"{name}/{case['name']}"], expected_of(case))
                    for case in cases
                    if f"{name}/{case['name']}" in answers
                ]
                count = sum(differs(answer, expected) for answer, expected in asked)
                cells.append(f"{count} of {len(asked)}" if asked else "–")
            beyond = ", *beyond*" if about["beyond_specification"] else ""
            line(f"`{rule}`{beyond}", str(len(cases)), *cells)


def print_cases():
    """Prints the answer to each case."""
    print("\n## All cases")
    for name in FILES:
        print(f"\n### {name}.json\n")
        line("case", "rule", "expected", *titles)
        line(*["---"] * (len(titles) + 3))
        for file, rule, case in rows():
            if file == name:
                expected = expected_of(case)
                key = f"{name}/{case['name']}"
                cells = [cell(answers.get(key), expected) for answers in columns.values()]
                line(f"`{case['name']}`", f"`{rule}`", expected, *cells)


print(INTRODUCTION)
print(f"Vectors {vectors['verify']['version']}, compared on {date} with:\n")
for (language, peer), version in versions.items():
    print(f"- {peer} {version} ({language})")
print()
print_summary()
print_cases()
