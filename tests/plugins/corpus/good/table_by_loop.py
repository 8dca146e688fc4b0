# {} -> [0, 1, 4, 9, 16]
SQUARES = []
for i in range(5):
    SQUARES.append(i * i)


def run():
    return SQUARES
