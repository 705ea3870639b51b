"""The ledger's tables, as the newest migration leaves them."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, MetaData, String, Table, Text

#: The newest revision in `migrations/versions`.
REVISION = "0002"

metadata = MetaData()

#: Every label ever given. Rows are only ever added.
labels = Table(
    "labels",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study", String(255), nullable=False),
    Column("patient", String(255), nullable=False),
    Column("recipe", String(64), nullable=False),
    Column("author", String(255), nullable=False),
    Column("author_kind", String(32), nullable=False),
    Column("time", String(32), nullable=False),
    Column("parent", Integer, nullable=True),
    Column("shown_version", String(64), nullable=False),
    Column("checksum", String(64), nullable=False),
    Column("ext", String(16), nullable=False),
    Column("names", Text, nullable=False),
    Column("ids", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("origin", String(32), nullable=False),
    Column("note", Text, nullable=False),
    Index("labels_by_study", "recipe", "study"),
    Index("labels_by_parent", "parent"),
    sqlite_autoincrement=True,
)

#: Which version's answer a reader's viewer was given; rows are only ever added.
shown = Table(
    "shown",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study", String(255), nullable=False),
    Column("recipe", String(64), nullable=False),
    Column("client", String(255), nullable=False),
    Column("version", String(64), nullable=False),
    Column("time", String(32), nullable=False),
    Index("shown_by_study", "study", "recipe", "client"),
)

#: Mask files that came from elsewhere, kept as they were; rows are only ever added.
originals = Table(
    "originals",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("study", String(255), nullable=False),
    Column("checksum", String(64), nullable=False),
    Column("ext", String(16), nullable=False),
    Column("names", Text, nullable=False),
    Column("time", String(32), nullable=False),
    Index("originals_by_study", "study"),
)

trainings = Table(
    "trainings",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("recipe", String(64), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("host", String(255), nullable=False),
    Column("started", String(32), nullable=False),
    Column("finished", String(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("note", Text, nullable=False),
    Column("last_row", Integer, nullable=False),
    Column("request", Text, nullable=False),
    Index("trainings_by_recipe", "recipe"),
)

#: The side of every patient ever seen; a row never changes.
patients = Table(
    "patients",
    metadata,
    Column("patient", String(255), primary_key=True),
    Column("side", String(16), nullable=False),
    Column("time", String(32), nullable=False),
)

settings = Table(
    "settings",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

#: Patients whose data was removed on request: who they were is kept as a salted hash, so that one who comes back is on
#: the same side of the split.
forgotten = Table(
    "forgotten",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("side", String(16), nullable=False),
    Column("time", String(32), nullable=False),
    Column("author", String(255), nullable=False),
    Column("rows", Text, nullable=False),
    Column("versions", Text, nullable=False),
)
