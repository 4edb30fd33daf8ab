"""People: whose face each face is, changes of that, suggestions, and groups of unnamed faces.

`naming` has the changes (`edits` their rows, `profile` what is said besides faces, `twins` two faces of one picture);
`names_copy` keeps the index up to date; `suggestions` and `likeness` recognise people from clear `examples`; `places`
finds faces whatever the model.
`group_run` goes through new faces in batches; `grouping` asks the index for neighbours; `linkage` decides which groups
merge; `groups` has the values that they exchange. What is kept is `app.catalog.FaceTable`.
"""

from app.people.examples import LEAST_QUALITY, clear_faces, is_clear
from app.people.group_run import GroupCounts, GroupRun
from app.people.grouping import cut_of, group_cut_of
from app.people.groups import Settings
from app.people.likeness import Likeness, identify
from app.people.metadata_names import GivenNames, MetadataNames
from app.people.metadata_rows import Given
from app.people.names_copy import NameCounts, NamesCopy
from app.people.naming import MAX_MERGED, Author, Done, Naming
from app.people.places import MAX_FACES, all_at, at, faces_in, matched, place_of, places_of
from app.people.profile import MAX_NAME, MAX_NOTES, Profile, checked_name
from app.people.regions import NamedFaces, named_faces, regions_of
from app.people.suggestions import Suggestion, Suggestions
from app.people.twins import beside

__all__ = [
    "LEAST_QUALITY",
    "MAX_FACES",
    "MAX_MERGED",
    "MAX_NAME",
    "MAX_NOTES",
    "Author",
    "Done",
    "Given",
    "GivenNames",
    "GroupCounts",
    "GroupRun",
    "Likeness",
    "MetadataNames",
    "NameCounts",
    "NamedFaces",
    "NamesCopy",
    "Naming",
    "Profile",
    "Settings",
    "Suggestion",
    "Suggestions",
    "all_at",
    "at",
    "beside",
    "checked_name",
    "clear_faces",
    "cut_of",
    "faces_in",
    "group_cut_of",
    "identify",
    "is_clear",
    "matched",
    "named_faces",
    "place_of",
    "places_of",
    "regions_of",
]
