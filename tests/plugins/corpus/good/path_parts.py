# {"path": "a/b/report.tar.gz"} -> {"name": "report.tar.gz", "stem": "report.tar", "ext": ".gz", "folder": "a/b"}
import os.path


def run(path):
    folder, name = os.path.split(path)
    stem, ext = os.path.splitext(name)
    return {"name": name, "stem": stem, "ext": ext, "folder": folder}
