# {"rows": [["a", "b"], ["1", "22"]]} -> "| a | b  |\n|---|----|\n| 1 | 22 |"
def run(rows):
    widths = [max(len(str(cell)) for cell in column) for column in zip(*rows)]
    head, *body = rows
    line = lambda cells: "| " + " | ".join(str(c).ljust(w) for c, w in zip(cells, widths)) + " |"
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([line(head), rule, *map(line, body)])
