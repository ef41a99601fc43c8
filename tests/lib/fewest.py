"""fewest.py MAPS DOCUMENTS N: the names of the documents, at most N, that together reach the most edges; of two that reach as much
the smaller one. MAPS has what afl-showmap wrote of each: a line EDGE:COUNT for every edge."""

import pathlib
import sys

maps, documents, most = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
edges = {path.name: {line.split(":")[0] for line in path.read_text().splitlines()} for path in maps.iterdir()}
size = {name: (documents / name).stat().st_size for name in edges}
reached = set()
for _ in range(most):
    best = max(edges, key=lambda name: (len(edges[name] - reached), -size[name], name), default=None)
    if best is None or edges[best] <= reached:
        break
    reached |= edges.pop(best)
    print(best)
