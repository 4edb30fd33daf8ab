"""Opens S3 stores with boto3, and says what is wrong with one in words that name the settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from app.core.errors import OceanoError

_CONNECT_SECONDS: Final = 2
_READ_SECONDS: Final = 5  # for what a person waits for
_PATIENT_READ_SECONDS: Final = 20
_ATTEMPTS: Final = 2
_PATIENT_ATTEMPTS: Final = 4  # within a second or two
_RETRY_AFTER: Final = 5.0

_ACCESS: Final = frozenset({"AccessDenied", "AllAccessDisabled", "AccountProblem", "403", "Forbidden"})
_CREDENTIALS: Final = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired",
     "InvalidSecurity", "AuthFailure", "401", "Unauthorized", "InvalidClientTokenId", "UnrecognizedClientException"}
)  # fmt: skip
_REGION: Final = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
)
_FULL: Final = frozenset(
    {"QuotaExceeded", "StorageFull", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage",
     "507"}
)  # fmt: skip
_RIGHTS: Final = "s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject"
_HOW: Final = (
    "set THUMBS_S3_ACCESS_KEY and THUMBS_S3_SECRET_KEY, or what boto3 reads: AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY in the environment, ~/.aws/credentials, or the role of the machine"
)


@dataclass(frozen=True, slots=True)
class S3Location:
    """Where an S3 store is, and the key for it.

    Attributes:
        bucket: the bucket, which exists.
        prefix: before the keys of all objects, without a slash at either end; empty: none.
        endpoint: URL of the store; empty: that of Amazon S3.
        access_key: empty: boto3 looks for credentials.
        secret_key: belongs to `access_key`.
    """

    bucket: str
    prefix: str = ""
    endpoint: str = ""
    access_key: str = field(default="", repr=False)
    secret_key: str = field(default="", repr=False)

    @property
    def url(self) -> str:
        """The location as `THUMBS_URL` has it."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def host(self) -> str:
        """Where the store is reached, in words."""
        return self.endpoint or "Amazon S3"


def open_client(location: S3Location, *, connections: int, patient: bool) -> Any:
    """Make a client, which several threads may use; nothing is sent yet.

    Args:
        location: of the store.
        connections: that are kept open; further ones are closed after each request.
        patient: wait longer for responses, and retry more often.

    Returns:
        A boto3 client for S3.

    Raises:
        OceanoError: `invalid_setting` if the configuration of boto3 on this machine is wrong.
    """
    import boto3  # slow to import: a third of a second
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError
    from botocore.handlers import add_expect_header

    config = Config(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_PATIENT_READ_SECONDS if patient else _READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": _PATIENT_ATTEMPTS if patient else _ATTEMPTS},
        max_pool_connections=connections,
        tcp_keepalive=True,
        # names of buckets are not in the DNS of other stores, and older ones refuse the newer checksums
        s3={"addressing_style": "path"} if location.endpoint else {},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        session = boto3.session.Session(
            aws_access_key_id=location.access_key or None, aws_secret_access_key=location.secret_key or None
        )
        client = session.client(
            "s3",
            endpoint_url=location.endpoint or None,
            region_name=session.region_name or "us-east-1",  # any: Amazon S3 redirects, other stores ignore it
            config=config,
        )
        # a thumbnail is one packet: asking first, with `Expect: 100-continue`, would be a second trip
        client.meta.events.unregister("before-call.s3", add_expect_header)
        return client
    except (BotoCoreError, ValueError) as failure:
        raise OceanoError(
            "invalid_setting",
            f"THUMBS_URL={location.url}: {failure}. Correct THUMBS_S3_ENDPOINT, ~/.aws/config or the environment "
            "variables that begin with AWS_",
            details={"settings": ["THUMBS_URL", "THUMBS_S3_ENDPOINT"]},
        ) from failure


def code_of(failure: Exception) -> str:
    """Return the code in the response of a store, such as "NoSuchKey"; empty if it did not respond."""
    response = getattr(failure, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def is_unreachable(failure: Exception) -> bool:
    """Return whether a store did not respond, or asks for later requests."""
    from botocore.exceptions import ConnectionError as NoConnection
    from botocore.exceptions import HTTPClientError

    response = getattr(failure, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    return isinstance(failure, (NoConnection, HTTPClientError)) or int(metadata.get("HTTPStatusCode", 0)) in (
        429,
        500,
        502,
        503,
        504,
    )


def store_error(failure: Exception, location: S3Location, work: str) -> OceanoError:
    """Return the error that says what is wrong.

    Args:
        failure: of botocore.
        location: of the store.
        work: what was tried, such as "written".

    Returns:
        `thumbs_unavailable`, or `disk_full`.
    """
    code = code_of(failure)
    reason = _reason(failure, code, location)
    return OceanoError(
        "disk_full" if code in _FULL else "thumbs_unavailable",
        f"thumbnails cannot be {work}, THUMBS_URL={location.url}: {reason}",
        details={"settings": ["THUMBS_URL"], "reason": code or type(failure).__name__},
        retry_after=_RETRY_AFTER if is_unreachable(failure) else None,
    )


def _reason(failure: Exception, code: str, location: S3Location) -> str:
    host = location.host
    if code == "NoSuchBucket":
        return f"{host} has no bucket {location.bucket!r}: create it, or correct THUMBS_URL"
    if code in _ACCESS:
        return f"{host} denies access: the key needs the rights {_RIGHTS} for this bucket"
    if code in _CREDENTIALS:
        return f"{host} refuses the credentials ({code}): {_HOW}"
    if code in _REGION:
        return f"the bucket is in another region ({code}): set AWS_REGION in the environment"
    if code in _FULL:
        return f"{host} is full ({code})"
    return _reason_without_code(failure, code, location)


def _reason_without_code(failure: Exception, code: str, location: S3Location) -> str:
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    host = location.host
    endpoint = "correct THUMBS_S3_ENDPOINT" if location.endpoint else "set THUMBS_S3_ENDPOINT if it is another store"
    no_credentials = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.TokenRetrievalError,
    )
    if isinstance(failure, no_credentials):
        return f"there are no credentials for {host} ({failure}): {_HOW}"
    if isinstance(failure, exceptions.SSLError):
        return f"the certificate of {host} is not accepted ({failure}): set AWS_CA_BUNDLE to that of its authority"
    is_other = isinstance(failure, exceptions.ClientError) and code in ("", "400", "404", "405")
    if is_other or isinstance(failure, ResponseParserError):
        return f"{host} does not respond as an S3 store: {endpoint}"
    if is_unreachable(failure):
        return f"{host} cannot be reached or fails ({failure}): check that it runs, or {endpoint}"
    return str(failure)
