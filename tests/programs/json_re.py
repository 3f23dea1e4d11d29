"""Builds, prints, parses and searches a large tree: many small objects, many strings that grow."""
import hashlib
import json
import random
import re

random.seed(7)


def tree(depth):
    if depth == 0:
        return random.choice([None, True, random.random(), random.randrange(10**12), "x" * random.randrange(200)])
    if depth % 2:
        return [tree(depth - 1) for _ in range(random.randrange(1, 8))]
    return {"key %d" % random.randrange(10**6): tree(depth - 1) for _ in range(random.randrange(1, 8))}


data = [tree(6) for _ in range(60)]
text = json.dumps(data, indent=1)
assert json.loads(text) == data
print(len(text), hashlib.sha256(text.encode()).hexdigest())

numbers = re.findall(r"(?m)^\s*(-?\d+)(?:\.\d+)?,?$", text)
words = re.sub(r"key (\d)(\d*)", lambda m: m.group(2) + "/" + m.group(1) * 3, text)
parts = re.split(r"[\[\]{},]+", words)
print(len(numbers), len(words), len(parts), hashlib.sha256("".join(parts).encode()).hexdigest())

grown = ""
for i in range(30000):
    grown += str(i)
counts = {}
for i in range(0, len(grown) - 3):
    counts[grown[i:i + 3]] = counts.get(grown[i:i + 3], 0) + 1
print(len(grown), sorted(counts.items())[:5], sum(counts.values()))
