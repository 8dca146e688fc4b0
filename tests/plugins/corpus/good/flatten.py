# {"data": [1, [2, [3, [4]]]]} -> [1, 2, 3, 4]
def _flatten(data):
    for item in data:
        if isinstance(item, (list, tuple)):
            yield from _flatten(item)
        else:
            yield item


def run(data):
    return list(_flatten(data))
