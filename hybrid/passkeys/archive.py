"""A zip archive around an export: Bitwarden's "zip with attachments", or a CXF document that somebody packed.

The one JSON document in it is read, whatever its name; attachments are passed over, nothing is written to disk. An
export response of CXP is such an archive as well, but each file in it is encrypted for the program that asked for it.
"""

from __future__ import annotations

import io
import zipfile
import zlib

from hybrid.errors import PortabilityError, PortabilityProblem
from hybrid.passkeys.portability import MAX_FILE_SIZE, malformed

_MAGIC = b"PK\x03\x04"
_MAX_MEMBERS = 10_000


def unpacked(data: bytes) -> bytes:
    """The JSON document in an archive; anything else as it is. Raises `PortabilityError`."""
    if not data.startswith(_MAGIC):
        return data
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _document(archive)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError):
        # RuntimeError: a member is encrypted; NotImplementedError: packed in a way that is not known
        raise malformed("the archive is damaged, or made in a way that is not read here") from None


def _document(archive: zipfile.ZipFile) -> bytes:
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise PortabilityError(f"the archive has more than {_MAX_MEMBERS} members", PortabilityProblem.TOO_LARGE)
    documents = [member for member in members if member.filename.lower().endswith(".json")]
    if not documents and any(member.filename.lower().endswith(".jwe") for member in members):
        raise PortabilityError(
            "the archive is encrypted for the program that asked for it", PortabilityProblem.ENCRYPTED
        )
    if len(documents) != 1:
        raise PortabilityError("the archive is of no format that is known here", PortabilityProblem.FORMAT)
    with archive.open(documents[0]) as file:
        data = file.read(MAX_FILE_SIZE + 1)  # not what the archive says of its size
    if len(data) > MAX_FILE_SIZE:
        raise PortabilityError("the document in the archive is too large", PortabilityProblem.TOO_LARGE)
    return data
