# {"numbers": [5, 1, 9, 3], "k": 2} -> [9, 5]
import heapq


def run(numbers, k):
    heap = []
    for n in numbers:
        heapq.heappush(heap, n)
        if len(heap) > k:
            heapq.heappop(heap)
    return sorted(heap, reverse=True)
