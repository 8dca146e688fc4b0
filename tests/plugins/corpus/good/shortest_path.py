# {"graph": {"a": {"b": 1, "c": 4}, "b": {"c": 1}, "c": {}}, "start": "a", "goal": "c"} -> {"cost": 2, "path": ["a", "b", "c"]}
import heapq
from math import inf
from typing import Dict


def run(graph: Dict[str, Dict[str, float]], start: str, goal: str):
    best = {start: 0}
    queue = [(0, start, [start])]
    while queue:
        cost, node, path = heapq.heappop(queue)
        if node == goal:
            return {"cost": cost, "path": path}
        for neighbour, weight in graph[node].items():
            new = cost + weight
            if new < best.get(neighbour, inf):
                best[neighbour] = new
                heapq.heappush(queue, (new, neighbour, path + [neighbour]))
    return None
