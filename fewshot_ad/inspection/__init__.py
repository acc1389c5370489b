"""The production line: a few normal photos in, decisions out, with a threshold from normals only.

``Inspector.from_normals(photos)``, ``inspector.predict(photos)``, ``inspector.save(path)``.
"""

from fewshot_ad.inspection.inspector import Inspector
from fewshot_ad.inspection.verdicts import Region, Verdict

__all__ = ["Inspector", "Region", "Verdict"]
