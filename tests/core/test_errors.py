"""Errors in OpenAI's form."""

from parkway.core.errors import InvalidRequest, ParkwayError, RateLimited, RelayedError, nearest


def test_the_body_is_openais_with_code_and_request_id() -> None:
    error = InvalidRequest("`n`: too many", param="n")
    assert error.to_body("req_1") == {
        "error": {
            "message": "`n`: too many",
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_request",
            "request_id": "req_1",
        }
    }


def test_retry_after_is_whole_seconds_and_never_early() -> None:
    assert RateLimited("x", retry_after_s=0.01).headers() == {"retry-after": "1"}
    assert RateLimited("x", retry_after_s=2.0).headers() == {"retry-after": "2"}
    assert RateLimited("x", retry_after_s=2.1).headers() == {"retry-after": "3"}
    assert RateLimited("x").headers() == {}


def test_codes_are_unique() -> None:
    def every(cls: type[ParkwayError]) -> list[type[ParkwayError]]:
        return [cls, *(found for sub in cls.__subclasses__() for found in every(sub))]

    classes = [
        cls
        for cls in every(ParkwayError)
        if cls not in (ParkwayError, RelayedError) and cls.__module__ == "parkway.core.errors"
    ]
    codes = [cls.code for cls in classes]
    assert len(codes) == len(set(codes))


def test_nearest() -> None:
    assert nearest("park-mni", ["park-mini", "park-embed"]) == ' Did you mean "park-mini"?'
    assert nearest("zzz", ["park-mini"]) == ""
