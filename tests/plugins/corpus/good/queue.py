# {} -> [1, [1, "a"], true, 0]
from queue import Queue, PriorityQueue


def run():
    q = Queue()
    q.put(1)
    pq = PriorityQueue()
    pq.put((2, "b"))
    pq.put((1, "a"))
    return [q.get(), pq.get(), q.empty(), q.qsize()]
