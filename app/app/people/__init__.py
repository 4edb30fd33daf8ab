"""Which unnamed faces show the same person.

`grouping` goes through the faces in batches and asks the index for their neighbours; `linkage` decides which groups
merge; `groups` has the values that both exchange, and what is kept between runs.
"""

from app.people.grouping import cut_of, group_faces
from app.people.groups import Groups, Placed, Rules, Settings

__all__ = ["Groups", "Placed", "Rules", "Settings", "cut_of", "group_faces"]
